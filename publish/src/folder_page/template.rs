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
pub(super) struct Filling<'a> {
    pub title: &'a str,
    pub style: &'a str,
    pub breadcrumbs: &'a str,
    pub rows: &'a str,
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

    /// The page.
    pub(super) fn fill(&self, filling: &Filling<'_>) -> String {
        let mut page = String::with_capacity(filling.rows.len() + 4096);
        for (text, hole) in &self.pieces {
            page += text;
            page += match hole {
                Hole::Title => filling.title,
                Hole::Style => filling.style,
                Hole::Breadcrumbs => filling.breadcrumbs,
                Hole::Rows => filling.rows,
                Hole::Count => filling.count,
            };
        }
        page + &self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_once() {
        let template = Template::parse("<h1>{{ title }}</h1>{{rows}}{{title}}.").unwrap();
        let filling = Filling {
            title: "{{rows}}",
            style: "",
            breadcrumbs: "",
            rows: "R",
            count: "",
        };
        assert_eq!(template.fill(&filling), "<h1>{{rows}}</h1>R{{rows}}.");
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
