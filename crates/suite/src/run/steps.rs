//! What each kind of step does, in terms of the [`Context`].

use std::time::Duration;

use protocol::{Condition, Event, Exit, FailureKind, Input, Pull, Push, Request, Wait};

use super::context::{Context, Stop};
use crate::model::{Action, Check, ExitRule, MetricCheck, Program, Step, Stream};
use crate::results::Status;
use crate::{functions, ktap, parsers};

/// How long a condition may take to come true, and a signalled program to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs one step. `prefix` says whether metrics carry the name of the step they come from.
pub(super) fn run(context: &mut Context, step: &Step, prefix: bool) -> Result<(), Stop> {
    context.current = None;
    let (role, label, limit) = (step.role.as_str(), step.label.as_str(), step.timeout);
    match &step.action {
        Action::Exec(program, rule) => {
            let exit = context.exec(label, role, program, limit)?;
            require_exit(context, label, &exit, *rule)
        }
        Action::Spawn(program) => context.spawn(label, role, program),
        Action::Wait(condition) => wait(context, role, condition, limit),
        Action::Join { of, exit } => {
            let ended = context.join(of, limit)?;
            require_exit(context, of, &ended, *exit)
        }
        Action::Stop { of, signal } => stop(context, of, *signal, limit),
        Action::Parse { of, parser } => parse(context, of, parser, prefix),
        Action::Check(check) => check_output(context, check),
        Action::CheckMetric(check) => check_metric(context, check),
        Action::Kselftest(program) => kselftest(context, label, role, program, limit),
        Action::Call { function, args, refused } => {
            let filled = args.iter().map(|(name, value)| Ok((name.clone(), context.fill(value)?)));
            let args = filled.collect::<Result<_, Stop>>()?;
            let mut call = functions::Call { context, role, label, limit, args };
            let result = functions::run(function, &mut call);
            match refused {
                None => result,
                Some(expected) => require_refusal(context, function, result, expected),
            }
        }
        Action::Push { path, content, mode } => {
            let (path, content) = (context.fill(path)?, context.fill(content)?);
            push(context, role, &path, content.as_bytes(), *mode, limit)
        }
        Action::Pull { path } => {
            let path = context.fill(path)?;
            let content = pull(context, role, &path, limit)?;
            context.files.push((format!("{label}-{}", path.rsplit('/').next().unwrap_or("file")), content));
            Ok(())
        }
    }
}

fn require_exit(context: &Context, label: &str, exit: &Exit, rule: ExitRule) -> Result<(), Stop> {
    let fits = match rule {
        ExitRule::Code(code) => exit.code == Some(code) && !exit.timed_out,
        ExitRule::Failure => !exit.success(),
        ExitRule::Any => true,
    };
    if fits { Ok(()) } else { Err(Stop::Failed(context.ending(label, exit))) }
}

fn require_refusal(
    context: &mut Context,
    function: &str,
    result: Result<(), Stop>,
    expected: &str,
) -> Result<(), Stop> {
    match result {
        Err(Stop::Failed(message)) if message.contains(expected) => {
            context.notes.push(format!("{function} refused, as it should: {message}"));
            Ok(())
        }
        Err(Stop::Failed(message)) => {
            Err(Stop::Failed(format!("`{function}` refused, but its message lacks `{expected}`: {message}")))
        }
        Ok(()) => Err(Stop::Failed(format!("`{function}` should have refused (`{expected}`) and did not"))),
        Err(other) => Err(other),
    }
}

fn wait(context: &mut Context, role: &str, condition: &Condition, limit: Option<Duration>) -> Result<(), Stop> {
    let condition = fill_condition(context, condition)?;
    let limit = limit.unwrap_or(PATIENCE).mul_f64(context.scale);
    let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Wait(Wait { condition, timeout_ms, interval_ms: 0 });
    // A server that dies will never listen: say so at once.
    let waited = context.guard(true).and_then(|()| {
        context.pump(role, request, None, |_, event| match event {
            Event::Done => Ok(Some(())),
            Event::Failed(failure) if failure.kind == FailureKind::TimedOut => {
                Err(Stop::Failed(format!("gave up after {:.0} s: {}", limit.as_secs_f64(), failure.message)))
            }
            Event::Failed(failure) => Err(Stop::Failed(failure.message)),
            _ => Ok(None),
        })
    });
    context.guard(false)?;
    waited
}

fn fill_condition(context: &Context, condition: &Condition) -> Result<Condition, Stop> {
    let fill = |text: &String| context.fill(text);
    let some = |text: &Option<String>| text.as_ref().map(fill).transpose();
    Ok(match condition {
        Condition::TcpListen { port, netns } => Condition::TcpListen { port: *port, netns: some(netns)? },
        Condition::RdmaListen { port, netns } => Condition::RdmaListen { port: *port, netns: some(netns)? },
        Condition::RdmaLinkActive { name, netns } => {
            Condition::RdmaLinkActive { name: fill(name)?, netns: some(netns)? }
        }
        Condition::FileExists { path } => Condition::FileExists { path: fill(path)? },
        Condition::FileContains { path, pattern } => {
            Condition::FileContains { path: fill(path)?, pattern: fill(pattern)? }
        }
        Condition::Link { name, netns, up } => Condition::Link { name: fill(name)?, netns: some(netns)?, up: *up },
        Condition::Succeeds { argv } => Condition::Succeeds { argv: argv.iter().map(fill).collect::<Result<_, _>>()? },
    })
}

fn stop(context: &mut Context, of: &str, signal: i32, limit: Option<Duration>) -> Result<(), Stop> {
    const KILL: i32 = 9;
    context.signal(of, signal)?;
    match context.join(of, Some(limit.unwrap_or(PATIENCE))) {
        Err(Stop::TimedOut) if signal != KILL => {
            context.notes.push(format!("`{of}` did not end on signal {signal} and was killed"));
            context.signal(of, KILL)?;
            context.join(of, Some(PATIENCE)).map(drop)
        }
        other => other.map(drop),
    }
}

fn text(context: &Context, of: &str, stream: Stream) -> Result<String, Stop> {
    let output = context.output(of).ok_or_else(|| Stop::Failed(format!("step `{of}` has no output")))?;
    let bytes = match stream {
        Stream::Stdout => &output.stdout,
        Stream::Stderr => &output.stderr,
    };
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn parse(context: &mut Context, of: &str, parser: &str, prefix: bool) -> Result<(), Stop> {
    let output = text(context, of, Stream::Stdout)?;
    let parsed = parsers::parse(parser, &output).map_err(|why| Stop::Failed(format!("`{of}`: {why}")))?;
    let name = |name: String| if prefix { format!("{of}.{name}") } else { name };
    for mut metric in parsed.metrics {
        metric.name = name(metric.name);
        context.metrics.push(metric);
    }
    for mut evidence in parsed.evidence {
        evidence.name = format!("{of}: {}", evidence.name);
        context.evidence.push(evidence);
    }
    Ok(())
}

fn check_output(context: &Context, check: &Check) -> Result<(), Stop> {
    let output = text(context, &check.of, check.stream)?;
    let stream = match check.stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
    };
    for (list, wanted) in [(&check.has, true), (&check.lacks, false)] {
        for text in list {
            let text = context.fill(text)?;
            if output.contains(&text) != wanted {
                let verb = if wanted { "lacks" } else { "has" };
                let tail = context.output(&check.of).map(|output| output.tail(2)).unwrap_or_default();
                return Err(Stop::Failed(format!("`{}`: {stream} {verb} `{text}`: {}", check.of, tail.join(" | "))));
            }
        }
    }
    Ok(())
}

fn check_metric(context: &Context, check: &MetricCheck) -> Result<(), Stop> {
    let Some(metric) = context.metrics.iter().find(|metric| metric.name == check.metric) else {
        let known: Vec<&str> = context.metrics.iter().map(|metric| metric.name.as_str()).collect();
        return Err(Stop::Failed(format!("no metric `{}` (measured: {})", check.metric, known.join(", "))));
    };
    let (value, unit) = (metric.value, &metric.unit);
    if let Some(least) = check.at_least.filter(|least| value < *least) {
        return Err(Stop::Failed(format!("{} is {value} {unit}, less than {least}", check.metric)));
    }
    if let Some(most) = check.at_most.filter(|most| value > *most) {
        return Err(Stop::Failed(format!("{} is {value} {unit}, more than {most}", check.metric)));
    }
    Ok(())
}

fn kselftest(
    context: &mut Context,
    label: &str,
    role: &str,
    program: &Program,
    limit: Option<Duration>,
) -> Result<(), Stop> {
    let exit = context.exec(label, role, program, limit)?;
    let stdout = text(context, label, Stream::Stdout)?;
    let stderr = text(context, label, Stream::Stderr)?;
    let results = ktap::parse(&stdout);
    context.subtests.extend(results.subtests());
    // A script goes on without a tool it lacks, and may even succeed.
    if let Some(tool) = missing_tool(&stderr).or_else(|| missing_tool(&stdout)) {
        return Err(Stop::Skipped(format!("tool:{tool}: the script calls it and the guest lacks it")));
    }
    let verdict = ktap::Verdict::of(&results, exit.shell_code(), &format!("{stdout}\n{stderr}"));
    match verdict.status {
        Status::Pass => Ok(()),
        Status::Skip => Err(Stop::Skipped(verdict.message)),
        Status::Xfail => Err(Stop::Xfailed(verdict.message)),
        Status::Xpass => Err(Stop::Xpassed(verdict.message)),
        _ => Err(Stop::Failed(format!("`{label}`: {}", verdict.message))),
    }
}

/// The tool a shell could not find: `x.sh: line 3: NAME: command not found` (bash), `x.sh: 3: NAME: not found` (dash).
fn missing_tool(stderr: &str) -> Option<&str> {
    stderr.lines().find_map(|line| {
        let head = line.strip_suffix(": command not found").or_else(|| line.strip_suffix(": not found"))?;
        let (shell, name) = head.rsplit_once(": ")?;
        let numbered = shell.rsplit([' ', ':']).next().is_some_and(|n| n.parse::<u32>().is_ok());
        (numbered && !name.contains(' ')).then_some(name)
    })
}

/// Writes a file in a guest.
pub(crate) fn push(
    context: &mut Context,
    role: &str,
    path: &str,
    content: &[u8],
    mode: u32,
    limit: Option<Duration>,
) -> Result<(), Stop> {
    let request = Request::Push(Push { path: path.into(), mode, size: content.len() as u64 });
    let inputs = vec![Input::Stdin(content.to_vec()), Input::StdinEof];
    context.call(role, request, inputs, limit, |_, event| match event {
        Event::Done => Ok(Some(())),
        Event::Failed(failure) => Err(Stop::Failed(format!("{path} cannot be written: {}", failure.message))),
        _ => Ok(None),
    })
}

/// Reads a file of a guest.
pub(crate) fn pull(context: &mut Context, role: &str, path: &str, limit: Option<Duration>) -> Result<Vec<u8>, Stop> {
    let mut content = Vec::new();
    context.call(role, Request::Pull(Pull { path: path.into() }), Vec::new(), limit, |_, event| match event {
        Event::Output { bytes, .. } => {
            content.extend(bytes);
            Ok(None)
        }
        Event::Done => Ok(Some(())),
        Event::Failed(failure) => Err(Stop::Failed(format!("{path} cannot be read: {}", failure.message))),
        _ => Ok(None),
    })?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::missing_tool;

    #[test]
    fn tools_that_shells_do_not_find() {
        for (stderr, tool) in [
            ("./rxe_ipv6.sh: line 44: rdma: command not found", Some("rdma")),
            ("x.sh: 3: ss: not found\nmore", Some("ss")),
            ("Error: device not found", None),
            ("modinfo: ERROR: Module tun not found.", None),
            ("rping: line: not found", None),
        ] {
            assert_eq!(missing_tool(stderr), tool, "{stderr}");
        }
    }
}
