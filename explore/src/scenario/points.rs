//! Rules by which crash points are chosen: `[crash] points`.

/// A rule that names crash points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointRule {
    /// `durable`: behind every event that makes something durable.
    Durable,
    /// `promises`: where a promise was made.
    Promises,
    /// `window:WN`: inside the window N of every fault that waits for the journal; 9 is where another one comes meanwhile.
    Window(u8),
    /// `symbol:NAME`: whenever the kernel enters the function.
    Symbol(String),
    /// `event:N`: behind event N.
    Event(u64),
    /// `sample:N`: N events chosen by the seed.
    Sample(u64),
    /// `fences`: in front of and behind every SFENCE and MFENCE: what lies between two of them is an epoch.
    Fences,
    /// `flushes`: in front of and behind every flush of a device: what tells a virtio-pmem device or a DIMM to make durable
    /// what it has, and the answer.
    Flushes,
    /// `every`: behind every event. Nothing that an instruction between two events does changes what is on the media.
    Every,
    /// `every:WN`: behind every event in window N.
    EveryOfWindow(u8),
    /// `between:A-B`: behind every event from marker A to marker B, the numbers of `marker` steps.
    Between(u32, u32),
}

impl std::str::FromStr for PointRule {
    type Err = String;

    fn from_str(text: &str) -> Result<PointRule, String> {
        let number =
            |digits: &str| digits.parse::<u64>().map_err(|_| format!("{text:?}: {digits:?} is not a number"));
        match text.split_once(':') {
            None if text == "durable" => Ok(PointRule::Durable),
            None if text == "promises" => Ok(PointRule::Promises),
            None if text == "fences" => Ok(PointRule::Fences),
            None if text == "flushes" => Ok(PointRule::Flushes),
            None if text == "every" => Ok(PointRule::Every),
            Some(("window", window)) => window_number(text, window).map(PointRule::Window),
            Some(("every", window)) => window_number(text, window).map(PointRule::EveryOfWindow),
            Some(("between", markers)) => {
                let numbers = markers.split_once('-').map(|(first, last)| (first.parse(), last.parse()));
                match numbers {
                    Some((Ok(first), Ok(last))) => Ok(PointRule::Between(first, last)),
                    _ => Err(format!("{text:?}: write the numbers of two markers, as between:1-2")),
                }
            }
            Some(("symbol", name)) if !name.is_empty() => Ok(PointRule::Symbol(name.to_owned())),
            Some(("event", event)) => number(event).map(PointRule::Event),
            Some(("sample", count)) => number(count).map(PointRule::Sample),
            _ => Err(format!(
                "unknown crash points {text:?}: write durable, promises, fences, flushes, window:W0 to window:W9, every, every:W0 to every:W9, between:MARKER-MARKER, symbol:NAME, event:N or sample:N"
            )),
        }
    }
}

impl std::fmt::Display for PointRule {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            PointRule::Durable => f.write_str("durable"),
            PointRule::Promises => f.write_str("promises"),
            PointRule::Window(number) => write!(f, "window:W{number}"),
            PointRule::Symbol(name) => write!(f, "symbol:{name}"),
            PointRule::Event(event) => write!(f, "event:{event}"),
            PointRule::Sample(count) => write!(f, "sample:{count}"),
            PointRule::Fences => f.write_str("fences"),
            PointRule::Flushes => f.write_str("flushes"),
            PointRule::Every => f.write_str("every"),
            PointRule::EveryOfWindow(number) => write!(f, "every:W{number}"),
            PointRule::Between(first, last) => write!(f, "between:{first}-{last}"),
        }
    }
}

fn window_number(rule: &str, window: &str) -> Result<u8, String> {
    match window.strip_prefix('W').and_then(|digits| digits.parse().ok()) {
        Some(number) if number <= 9 => Ok(number),
        _ => Err(format!("{rule:?}: the windows are W0 to W9")),
    }
}
