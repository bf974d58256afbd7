//! What a scenario says of the user's own programs.

use super::schema::{Document, GuestFile};
use super::{ScenarioError, Source};

/// Files have one content, and check programs a name, a class that is a violation, and something to be told.
pub(super) fn check(source: &Source, document: &Document) -> Result<(), ScenarioError> {
    for (number, file) in document.machine.files.iter().enumerate() {
        if let Err((key, what)) = check_file(file) {
            let place = source.place(&["machine", "files", &number.to_string(), key]);
            return Err(source.error(place, key, what));
        }
    }
    let wrong = |key: &str, what: &str| Err(source.error(source.place(&["check", key]), key, what));
    match &document.check {
        Some(check) if check.command.is_empty() => wrong("command", "names no program"),
        Some(check) if !check.broken.is_violation() => {
            wrong("broken", "must be a violation: lost, stale, not-atomic, corrupt or guest-crash")
        }
        Some(_) => Ok(()),
        None => match document.step.iter().find(|step| step.get_ref().acknowledge.is_some()) {
            Some(step) => {
                let what = "nobody is told: write a [check] with the command that says whether it is kept";
                Err(source.error(source.find_key(step.span().start, "acknowledge"), "acknowledge", what))
            }
            None => Ok(()),
        },
    }
}

fn check_file(file: &GuestFile) -> Result<(), (&'static str, &'static str)> {
    let contents = [file.text.is_some(), file.from.is_some(), file.c.is_some()];
    if contents.iter().filter(|there| **there).count() != 1 {
        return Err(("to", "has exactly one content: write one of text, from and c beside it"));
    }
    if file.c.is_none() && !file.packages.is_empty() {
        return Err(("packages", "stands beside c only: programs of Debian stand in programs"));
    }
    if file.c.is_none() && !file.flags.is_empty() {
        return Err(("flags", "stands beside c only"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Scenario;

    fn error(machine: &str, rest: &str) -> String {
        let text = format!(
            "name = \"a\"\n[machine]\nkernel = \"k\"\n{machine}\n[[nvdimm]]\nsize = \"32M\"\n[filesystem]\ntype = \"ext4\"\n{rest}"
        );
        Scenario::parse(&text, "a.toml").map_or_else(|error| error.to_string(), |_| "fine".to_owned())
    }

    #[test]
    fn a_file_has_exactly_one_content() {
        assert_eq!(error("files = [{ to = \"/a\", text = \"\" }, { to = \"/b\", c = \"b.c\" }]", ""), "fine");
        let none = error("files = [{ to = \"/a\" }]", "");
        assert!(none.starts_with("a.toml:4: to: has exactly one content"), "{none}");
        assert!(error("files = [{ to = \"/a\", text = \"\", from = \"b\" }]", "").contains("exactly one"));
        assert!(
            error("files = [{ to = \"/a\", text = \"\", flags = [\"-O2\"] }]", "")
                .contains("a.toml:4: flags")
        );
    }

    #[test]
    fn a_check_program_has_a_name_and_finds_violations() {
        assert_eq!(error("", "[check]\ncommand = [\"/check\"]\nbroken = \"corrupt\""), "fine");
        assert!(error("", "[check]\ncommand = []").starts_with("a.toml:10: command: names no program"));
        assert!(
            error("", "[check]\ncommand = [\"a\"]\nbroken = \"guest-warning\"").contains("a.toml:11: broken")
        );
    }

    #[test]
    fn acknowledgements_need_somebody_who_is_told() {
        let step = "[[step]]\nexec = [\"/a\"]\nacknowledge = \"stdout\"\n";
        let unheard = error("", step);
        assert!(unheard.starts_with("a.toml:11: acknowledge: nobody is told"), "{unheard}");
        assert_eq!(error("", &format!("[check]\ncommand = [\"a\"]\n{step}")), "fine");
        assert!(
            error("", "[[step]]\nsync = true\nacknowledge = \"stdout\"").contains("stands beside exec only")
        );
    }
}
