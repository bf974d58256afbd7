//! Shell commands in a list, as far as they have to be told apart.

/// A command of a list, and what stands between it and the next: `&&`, `;`, or nothing.
pub(super) struct Command {
    pub text: String,
    pub then: &'static str,
}

impl Command {
    pub fn words(&self) -> Vec<&str> {
        self.text.split_whitespace().collect()
    }
}

/// The commands of a list. Quotes and parentheses stay whole.
pub(super) fn commands(list: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut text = String::new();
    let (mut quote, mut depth) = (None, 0_usize);
    let mut left = list.chars().peekable();
    let mut end = |text: &mut String, then| {
        let command = std::mem::take(text).trim().to_owned();
        if !command.is_empty() {
            commands.push(Command { text: command, then });
        }
    };
    while let Some(c) = left.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ';' | '\n') if depth == 0 => {
                end(&mut text, ";");
                continue;
            }
            (None, '&') if depth == 0 && left.peek() == Some(&'&') => {
                left.next();
                end(&mut text, "&&");
                continue;
            }
            _ => (),
        }
        text.push(c);
    }
    end(&mut text, "");
    commands
}

/// The commands as one list again.
pub(super) fn list(commands: &[Command]) -> String {
    let mut list = String::new();
    for (at, command) in commands.iter().enumerate() {
        list += &command.text;
        if at + 1 < commands.len() {
            list += match command.then {
                "&&" => " && ",
                _ => "; ",
            };
        }
    }
    list
}
