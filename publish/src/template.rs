//! A page with holes: `{{rows}}` and others. What is put in is not looked through for more of them.

/// Longest template, in bytes. Chosen: a page of a design system with everything inlined.
pub(crate) const TEMPLATE_BYTES_MAX: u64 = 1 << 20;

/// What can stand in a template.
const HOLES: [(&str, Hole); 5] = [
    ("title", Hole::Title),
    ("style", Hole::Style),
    ("breadcrumbs", Hole::Breadcrumbs),
    ("rows", Hole::Rows),
    ("count", Hole::Count),
];

/// A template that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// A name between braces that stands for nothing.
    #[error("{{{{{0}}}}} stands for nothing; known are title, style, breadcrumbs, rows and count")]
    Unknown(String),
    /// No list.
    #[error("It has no {{{{rows}}}}")]
    NoRows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    Title,
    Style,
    Breadcrumbs,
    Rows,
    Count,
}

/// What is put in. All of it is HTML.
pub(crate) struct Filling<'a> {
    pub title: &'a str,
    pub style: &'a str,
    pub breadcrumbs: &'a str,
    pub count: &'a str,
}

/// Text, and the hole after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<(String, Hole)>,
    end: String,
}

impl Template {
    /// Reads a template's text.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after
                .split_once("}}")
                .ok_or_else(|| TemplateError::Unknown(after.chars().take(20).collect()))?;
            let hole = HOLES.iter().find(|(known, _)| *known == name.trim());
            let (_, hole) = hole.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
            pieces.push((before.to_owned(), *hole));
            rest = after;
        }
        if !pieces.iter().any(|(_, hole)| *hole == Hole::Rows) {
            return Err(TemplateError::NoRows);
        }
        Ok(Self {
            pieces,
            end: rest.to_owned(),
        })
    }

    /// The page, made of `rows` itself: they have megabytes, and there is one of them in memory.
    pub fn fill(&self, filling: &Filling<'_>, rows: String) -> String {
        let at = self.pieces.iter().position(|(_, hole)| *hole == Hole::Rows);
        let (before, after) = self.pieces.split_at(at.unwrap_or_default());
        let mut head = filling.fill(before, &rows);
        let mut tail = String::new();
        if let Some(((text, _), after)) = after.split_first() {
            head += text;
            tail = filling.fill(after, &rows);
        }
        let mut page = rows;
        page.insert_str(0, &head);
        page + &tail + &self.end
    }
}

impl Filling<'_> {
    fn fill(&self, pieces: &[(String, Hole)], rows: &str) -> String {
        let mut filled = String::new();
        for (text, hole) in pieces {
            filled += text;
            filled += match hole {
                Hole::Title => self.title,
                Hole::Style => self.style,
                Hole::Breadcrumbs => self.breadcrumbs,
                Hole::Rows => rows,
                Hole::Count => self.count,
            };
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_holes_has_none() {
        let template = Template::parse("<h1>{{ title }}</h1>{{rows}}{{title}}{{rows}}{{title}}.").unwrap();
        let filling = Filling {
            title: "{{rows}}",
            style: "",
            breadcrumbs: "",
            count: "",
        };
        assert_eq!(
            template.fill(&filling, "R".to_owned()),
            "<h1>{{rows}}</h1>R{{rows}}R{{rows}}."
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(Template::parse("{{rosw}}"), Err(TemplateError::Unknown("rosw".into())));
        assert_eq!(
            Template::parse("{{rows").unwrap_err(),
            TemplateError::Unknown("rows".into())
        );
        assert_eq!(Template::parse("<p>"), Err(TemplateError::NoRows));
        assert_eq!(TemplateError::NoRows.to_string(), "It has no {{rows}}");
    }
}
