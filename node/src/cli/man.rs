//! `man`: the manual page in roff on stdout, the program first, then each command.

use api::failure::{Exit, Failure};

/// Prints it.
pub fn run() -> Result<Exit, Failure> {
    let mut page = Vec::new();
    let mut command = super::command();
    command.build();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page).and_then(|()| {
        let listed = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        listed
            .into_iter()
            .try_for_each(|sub| commands(sub, sub.get_name(), &mut page))
    });
    rendered.map_err(|error| Failure::context("The manual cannot be rendered", &error))?;
    super::completions::print(&page)
}

fn commands(command: &clap::Command, name: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(page, ".SH \"GRIDBACKUP {}\"", name.to_uppercase())?;
    let man = clap_mangen::Man::new(command.clone());
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(page)?;
    }
    command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
        .try_for_each(|sub| commands(sub, &format!("{name} {}", sub.get_name()), page))
}
