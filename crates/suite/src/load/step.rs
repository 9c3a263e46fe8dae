//! One flat table of a suite file → one typed [`Step`].
//!
//! [`KINDS`] says which keys go with which kind of step; a key that does not belong is an error that says what does,
//! instead of being ignored.

use protocol::Condition;

use super::raw::{Limit, Scalar, Step as Raw, Texts, Words};
use super::words;
use crate::model::{Action, Check, ExitRule, MetricCheck, Place, Program, Step, Stream};
use crate::nearest::hint;
use crate::vars::Vars;
use crate::{functions, parsers};

/// Kind of step, keys it needs, keys it may have besides `as`, `guest` and `timeout`.
const KINDS: &[(&str, &[&str], &[&str])] = &[
    ("exec", &[], &["netns", "env", "cwd", "stdin", "exit"]),
    ("spawn", &["as"], &["netns", "env", "cwd", "stdin"]),
    ("kselftest", &[], &["env", "cwd"]),
    ("wait", &[], &["port", "netns", "name", "path", "text", "program"]),
    ("join", &[], &["exit"]),
    ("stop", &[], &["signal"]),
    ("parse", &["with"], &[]),
    ("check", &[], &["stream", "has", "lacks"]),
    ("metric", &[], &["at-least", "at-most"]),
    ("call", &[], &["args", "refused"]),
    ("push", &["content"], &["mode"]),
    ("pull", &[], &[]),
];

/// Condition of a `wait`, keys it needs, keys it may have.
const CONDITIONS: &[(&str, &[&str], &[&str])] = &[
    ("tcp-listen", &["port"], &["netns"]),
    ("rdma-listen", &[], &["port", "netns"]),
    ("rdma-active", &["name"], &["netns"]),
    ("file-exists", &["path"], &[]),
    ("file-contains", &["path", "text"], &[]),
    ("link", &["name"], &["netns"]),
    ("link-up", &["name"], &["netns"]),
    ("succeeds", &["program"], &[]),
];

/// Where the kit has the kernel's selftests.
const KSELFTESTS: &str = "/usr/lib/kselftests";

/// Signals by the names people use.
const SIGNALS: [(&str, i32); 6] = [("HUP", 1), ("INT", 2), ("KILL", 9), ("USR1", 10), ("USR2", 12), ("TERM", 15)];

/// What a step is read in the light of.
pub(super) struct Context<'a> {
    pub vars: &'a mut Vars,
    pub roles: &'a [String],
}

impl Context<'_> {
    fn fill(&mut self, text: &str) -> Result<String, String> {
        self.vars.fill(text)
    }

    fn fill_opt(&mut self, text: &Option<String>) -> Result<Option<String>, String> {
        text.as_deref().map(|t| self.fill(t)).transpose()
    }

    /// In a line, a word that is one whole variable stands for the words of its value, be it none.
    fn words(&mut self, words: &Words) -> Result<Vec<String>, String> {
        let line = match words {
            Words::Line(line) => line,
            Words::List(list) if list.is_empty() => return Err("the command line is empty".into()),
            Words::List(list) => return list.iter().map(|word| self.fill(word)).collect(),
        };
        let mut out = Vec::new();
        for word in words::split(line)? {
            let filled = self.fill(&word)?;
            let whole = word.starts_with('{') && word.ends_with('}') && word.matches('{').count() == 1;
            match filled.trim().is_empty() {
                true if whole => {}
                false if whole => out.extend(words::split(&filled)?),
                _ => out.push(filled),
            }
        }
        if out.is_empty() { Err(format!("the command line is empty: {line}")) } else { Ok(out) }
    }

    fn texts(&mut self, texts: &Option<Texts>) -> Result<Vec<String>, String> {
        texts.iter().flat_map(|t| t.list()).map(|text| self.fill(text)).collect()
    }

    fn program(&mut self, raw: &Raw, words: &Words) -> Result<Program, String> {
        let argv = self.words(words)?;
        let mut env = Vec::new();
        for (name, value) in raw.env.iter().flatten() {
            env.push((name.clone(), self.fill(&value.text())?));
        }
        Ok(Program {
            argv,
            netns: self.fill_opt(&raw.netns)?,
            env,
            cwd: self.fill_opt(&raw.cwd)?,
            stdin: self.fill_opt(&raw.stdin)?,
        })
    }

    fn port(&mut self, port: &Option<Scalar>) -> Result<Option<u16>, String> {
        let Some(port) = port else { return Ok(None) };
        let text = self.fill(&port.text())?;
        match text.parse() {
            Ok(port) if port > 0 => Ok(Some(port)),
            _ => Err(format!("`port = {text}` is not a port: 1 to 65535 are")),
        }
    }

    fn limit(&mut self, limit: &Option<Limit>) -> Result<Option<f64>, String> {
        match limit {
            None => Ok(None),
            Some(Limit::Number(number)) => Ok(Some(*number)),
            Some(Limit::Text(text)) => {
                let filled = self.fill(text)?;
                filled.parse().map(Some).map_err(|_| format!("`{filled}` is not a number"))
            }
        }
    }

    fn condition(&mut self, raw: &Raw, name: &str) -> Result<Condition, String> {
        let known: Vec<&str> = CONDITIONS.iter().map(|c| c.0).collect();
        let Some((_, needs, may)) = CONDITIONS.iter().find(|c| c.0 == name) else {
            return Err(format!("unknown condition `wait = \"{name}\"`{}", hint(name, &known)));
        };
        keys_fit(raw, &format!("wait = \"{name}\""), needs, may, &["wait"])?;
        let port = self.port(&raw.port)?;
        let netns = self.fill_opt(&raw.netns)?;
        let text = |value: Option<String>| value.unwrap_or_default();
        let device = text(self.fill_opt(&raw.name)?);
        let path = text(self.fill_opt(&raw.path)?);
        Ok(match name {
            "tcp-listen" => Condition::TcpListen { port: port.unwrap_or_default(), netns },
            "rdma-listen" => Condition::RdmaListen { port, netns },
            "rdma-active" => Condition::RdmaLinkActive { name: device, netns },
            "file-exists" => Condition::FileExists { path },
            "file-contains" => Condition::FileContains { path, pattern: text(self.fill_opt(&raw.text)?) },
            "link" => Condition::Link { name: device, netns, up: false },
            "link-up" => Condition::Link { name: device, netns, up: true },
            _ => match &raw.program {
                Some(program) => Condition::Succeeds { argv: self.words(program)? },
                None => return Err("`wait = \"succeeds\"` needs `program`".into()),
            },
        })
    }

    fn call(&mut self, raw: &Raw, name: &str) -> Result<Action, String> {
        let function = functions::find(name).ok_or_else(|| {
            format!("unknown function `call = \"{name}\"`{}", hint(name, &functions::NAMES.map(|f| f.0)))
        })?;
        let mut args = std::collections::BTreeMap::new();
        for (key, value) in raw.args.iter().flatten() {
            let known: Vec<&str> = function.needs.iter().chain(function.may).copied().collect();
            if !known.contains(&key.as_str()) {
                return Err(format!("function `{name}` has no argument `{key}`{}", hint(key, &known)));
            }
            args.insert(key.clone(), self.fill(&value.text())?);
        }
        if let Some(missing) = function.needs.iter().find(|need| !args.contains_key(**need)) {
            return Err(format!("function `{name}` needs the argument `{missing}`"));
        }
        Ok(Action::Call { function: name.into(), args, refused: self.fill_opt(&raw.refused)? })
    }

    fn action(&mut self, raw: &Raw, kind: &str) -> Result<Action, String> {
        // The caller found exactly one kind set; `fill` of that key's text is the step's object.
        let object = |text: &Option<String>| text.clone().unwrap_or_default();
        let exit = exit_rule(&raw.exit)?;
        Ok(match kind {
            "exec" | "spawn" | "kselftest" => {
                let Some(words) = raw.exec.as_ref().or(raw.spawn.as_ref()).or(raw.kselftest.as_ref()) else {
                    return Err(format!("`{kind}` needs a command line"));
                };
                let mut program = self.program(raw, words)?;
                match kind {
                    "exec" => Action::Exec(program, exit),
                    "spawn" => Action::Spawn(program),
                    _ => {
                        if !program.argv[0].starts_with('/') {
                            program.argv[0] = format!("{KSELFTESTS}/{}", program.argv[0]);
                        }
                        // Selftests source their helpers relative to their own folder.
                        let folder = program.argv[0].rsplit_once('/').map(|(folder, _)| folder.to_string());
                        program.cwd = program.cwd.or(folder);
                        Action::Kselftest(program)
                    }
                }
            }
            "wait" => Action::Wait(self.condition(raw, &object(&raw.wait))?),
            "join" => Action::Join { of: self.fill(&object(&raw.join))?, exit },
            "stop" => {
                let name = raw.signal.as_deref().unwrap_or("TERM");
                let names = SIGNALS.map(|s| s.0);
                let Some((_, signal)) = SIGNALS.iter().find(|s| s.0 == name) else {
                    return Err(format!("unknown signal `{name}`{}", hint(name, &names)));
                };
                Action::Stop { of: self.fill(&object(&raw.stop))?, signal: *signal }
            }
            "parse" => {
                let parser = self.fill(&object(&raw.with))?;
                if !parsers::NAMES.contains(&parser.as_str()) {
                    return Err(format!("unknown parser `with = \"{parser}\"`{}", hint(&parser, &parsers::NAMES)));
                }
                Action::Parse { of: self.fill(&object(&raw.parse))?, parser }
            }
            "check" => {
                let stream = match raw.stream.as_deref() {
                    None | Some("stdout") => Stream::Stdout,
                    Some("stderr") => Stream::Stderr,
                    Some(other) => return Err(format!("`stream = \"{other}\"`: allowed are stdout and stderr")),
                };
                let (has, lacks) = (self.texts(&raw.has)?, self.texts(&raw.lacks)?);
                if has.is_empty() && lacks.is_empty() {
                    return Err("`check` needs `has` or `lacks`, or it checks nothing".into());
                }
                Action::Check(Check { of: self.fill(&object(&raw.check))?, stream, has, lacks })
            }
            "metric" => {
                if raw.at_least.is_none() && raw.at_most.is_none() {
                    return Err("`metric` needs `at-least` or `at-most`, or it checks nothing".into());
                }
                let metric = self.fill(&object(&raw.metric))?;
                let (at_least, at_most) = (self.limit(&raw.at_least)?, self.limit(&raw.at_most)?);
                Action::CheckMetric(MetricCheck { metric, at_least, at_most })
            }
            "call" => self.call(raw, &object(&raw.call))?,
            "push" => Action::Push {
                path: self.fill(&object(&raw.push))?,
                content: self.fill(&object(&raw.content))?,
                mode: raw.mode.unwrap_or(0o644),
            },
            _ => Action::Pull { path: self.fill(&object(&raw.pull))? },
        })
    }

    /// Reads one step; `number` is its place in its list, from 1.
    pub fn step(&mut self, raw: &Raw, place: Place, number: usize) -> Result<Step, String> {
        let keys = raw.keys();
        let kinds: Vec<_> = KINDS.iter().filter(|kind| keys.contains(&kind.0)).collect();
        let (kind, needs, may) = match kinds.as_slice() {
            [one] => **one,
            [] => {
                let all = KINDS.iter().map(|kind| kind.0).collect::<Vec<_>>().join(", ");
                return Err(format!("a step needs one of: {all}"));
            }
            [one, two, ..] => return Err(format!("a step does one thing, not both `{}` and `{}`", one.0, two.0)),
        };
        keys_fit(raw, &format!("`{kind}`"), needs, may, &[kind])?;
        let role = match &raw.guest {
            None => self.roles[0].clone(),
            Some(role) if self.roles.contains(role) => role.clone(),
            Some(role) => {
                let list = self.roles.join("\", \"");
                return Err(format!("`guest = \"{role}\"`: this test has `guests = [\"{list}\"]`"));
            }
        };
        let label = match self.fill_opt(&raw.label)? {
            Some(label) if is_name(&label) => label,
            Some(label) => return Err(format!("`as = \"{label}\"`: only letters, digits, `-` and `_` are allowed")),
            None => format!("{number}-{kind}"),
        };
        let timeout = raw.timeout.as_deref().map(words::duration).transpose()?;
        Ok(Step { label, place, role, timeout, action: self.action(raw, kind)? })
    }
}

/// Whether a name can be part of a file name and of a scope.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn keys_fit(raw: &Raw, what: &str, needs: &[&str], may: &[&str], own: &[&str]) -> Result<(), String> {
    let keys = raw.keys();
    if let Some(missing) = needs.iter().find(|key| !keys.contains(key)) {
        return Err(format!("{what} needs `{missing}`"));
    }
    let common = ["as", "guest", "timeout"];
    let fits = |key: &&str| [own, &common, needs, may].iter().any(|list| list.contains(key));
    match keys.iter().find(|key| !fits(key)) {
        Some(key) => {
            let list = [own, needs, may, &common].concat().join(", ");
            Err(format!("{what} takes no `{key}` (it takes {list})"))
        }
        None => Ok(()),
    }
}

fn exit_rule(exit: &Option<Scalar>) -> Result<ExitRule, String> {
    match exit {
        None => Ok(ExitRule::Code(0)),
        Some(Scalar::Number(code @ 0..=255)) => Ok(ExitRule::Code(*code as i32)),
        Some(Scalar::Text(text)) if text == "failure" => Ok(ExitRule::Failure),
        Some(Scalar::Text(text)) if text == "any" => Ok(ExitRule::Any),
        Some(other) => Err(format!("`exit = {}`: write a status from 0 to 255, \"failure\" or \"any\"", other.text())),
    }
}
