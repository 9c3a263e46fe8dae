//! A test's programs: run to their end, started and left running, waited for, signalled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::{Event, Exec, Exit, Input, Request};

use super::context::{Context, Output, Running, Stop, TICK};
use crate::guests::{GuestError, GuestStream};
use crate::model::Program;

impl Context<'_> {
    fn exec_request(&self, program: &Program) -> Result<Exec, Stop> {
        let fill = |text: &String| self.fill(text);
        let mut env = Vec::new();
        for (name, value) in &program.env {
            env.push((name.clone(), self.fill(value)?));
        }
        Ok(Exec {
            argv: program.command().iter().map(fill).collect::<Result<_, _>>()?,
            env,
            cwd: program.cwd.as_ref().map(fill).transpose()?,
            stdin: program.stdin.is_some(),
            scope: Some(self.scope.clone()),
            ..Exec::default()
        })
    }

    fn feed(&mut self, stream: &mut dyn GuestStream, program: &Program) -> Result<(), Stop> {
        let Some(text) = &program.stdin else { return Ok(()) };
        let text = self.fill(text)?;
        for input in [Input::Stdin(text.into_bytes()), Input::StdinEof] {
            stream.send(input).map_err(|error| self.explain(error))?;
        }
        Ok(())
    }

    /// Runs a program to its end. Its output is kept under `label`.
    pub fn exec(&mut self, label: &str, role: &str, program: &Program, limit: Option<Duration>) -> Result<Exit, Stop> {
        let request = Request::Exec(self.exec_request(program)?);
        let mut stream = self.open(role, request)?;
        self.feed(stream.as_mut(), program)?;
        self.outputs.insert(label.into(), Output::default());
        self.current = Some(label.into());
        let guest = self.guest(role)?;
        let ended = self.pump_stream(stream.as_mut(), limit, |context, event| {
            let output = context.outputs.entry(label.into()).or_default();
            match event {
                Event::Output { channel, bytes } => {
                    context.last_output = Instant::now();
                    output.take(channel, &bytes);
                    Ok(None)
                }
                Event::Exited(exit) => {
                    output.exit = Some(exit.clone());
                    Ok(Some(exit))
                }
                Event::Failed(failure) => {
                    Err(GuestError::Refused { guest: guest.clone(), message: failure.message }.into())
                }
                _ => Ok(None),
            }
        });
        if ended == Err(Stop::TimedOut) {
            // Whoever finds out why it hangs needs it alive; it dies with the test.
            self.running.insert(label.into(), Running { role: role.into(), stream });
        }
        ended
    }

    /// Starts a program and returns once it runs.
    pub fn spawn(&mut self, label: &str, role: &str, program: &Program) -> Result<(), Stop> {
        let request = Request::Exec(self.exec_request(program)?);
        let mut stream = self.open(role, request)?;
        self.feed(stream.as_mut(), program)?;
        self.outputs.insert(label.into(), Output::default());
        let started = self.pump_stream(stream.as_mut(), None, |_, event| match event {
            Event::Started { .. } => Ok(Some(())),
            Event::Failed(failure) => Err(Stop::Failed(format!("it did not start: {}", failure.message))),
            _ => Ok(None),
        });
        self.running.insert(label.into(), Running { role: role.into(), stream });
        self.unjoined.insert(label.into());
        started
    }

    /// How a spawned program ended, if it has.
    pub fn ended(&self, label: &str) -> Option<Exit> {
        self.outputs.get(label).and_then(|output| output.exit.clone())
    }

    /// From here on, a spawned program that fails ends the step under way; one that has failed already does so now.
    pub fn guard(&mut self, on: bool) -> Result<(), Stop> {
        self.guard_spawned = on;
        let fallen = self.unjoined.iter().find_map(|label| Some((label, self.ended(label)?)));
        match fallen.filter(|(_, exit)| on && !exit.success()) {
            Some((label, exit)) => Err(Stop::Failed(self.ending(label, &exit))),
            None => Ok(()),
        }
    }

    /// How a program ended and what it said last, in one line.
    pub fn ending(&self, label: &str, exit: &Exit) -> String {
        let how = match (exit.code, exit.signal) {
            _ if exit.timed_out => "killed when its time was up".to_string(),
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended in an unknown way".into(),
        };
        let tail = self.outputs.get(label).map(|output| output.tail(2)).unwrap_or_default();
        let said = if tail.is_empty() { "it printed nothing".into() } else { tail.join(" | ") };
        format!("`{label}`: {how}: {said}")
    }

    /// Waits for a spawned program's end.
    pub fn join(&mut self, label: &str, limit: Option<Duration>) -> Result<Exit, Stop> {
        self.unjoined.remove(label);
        self.current = Some(label.into());
        let limit = limit.map(|limit| Instant::now() + limit.mul_f64(self.scale));
        loop {
            self.drain()?;
            if let Some(exit) = self.ended(label) {
                return Ok(exit);
            }
            let Some(running) = self.running.get_mut(label) else {
                return Err(Stop::Failed(format!("`{label}` never ran")));
            };
            match running.stream.recv(TICK) {
                Ok(Some(event)) => self.spawned_event(label, event)?,
                Ok(None) => {}
                Err(error) => return Err(self.explain(error)),
            }
            self.watch()?;
            if limit.is_some_and(|limit| Instant::now() >= limit) {
                return Err(Stop::TimedOut);
            }
        }
    }

    /// Sends a signal to a spawned program; nothing happens when it has ended.
    pub fn signal(&mut self, label: &str, signal: i32) -> Result<(), Stop> {
        self.drain()?;
        if let Some(running) = self.running.get_mut(label) {
            running.stream.send(Input::Signal(signal)).map_err(|error| self.explain(error))?;
        }
        Ok(())
    }

    /// What a step printed.
    pub fn output(&self, label: &str) -> Option<&Output> {
        self.outputs.get(label)
    }

    /// Kills the spawned programs of a role by dropping their streams.
    pub fn drop_programs(&mut self, role: &str) {
        self.running.retain(|_, running| running.role != role);
    }

    /// Forgets spawned programs, which kills them, and hands out all outputs.
    pub fn finish(&mut self) -> BTreeMap<String, Output> {
        self.running.clear();
        std::mem::take(&mut self.outputs)
    }
}
