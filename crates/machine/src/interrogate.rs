//! Asking a guest that no longer answers what it is doing.
//!
//! Two ways in need no process of the guest: magic-sysrq over the serial line, while it still takes interrupts, and a
//! non-maskable interrupt, which nothing can keep out. Both answer on the console. A kernel that prints from a thread
//! of its own (`nbcon` consoles) keeps the answer to itself while that thread gets no turn; a panic brings everything
//! out. So an interrogation ends with one, which the NMI causes (`unknown_nmi_panic`), and its trace shows where the CPU
//! was caught.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::qmp::QmpError;

/// How long the answers to sysrq keys are waited for once the console stands still.
const STILL: Duration = Duration::from_millis(1500);

impl Machine {
    /// Sends a magic-sysrq key over the serial line (a break, then the key). The answer appears on the console. `l` shows
    /// what the CPUs do, `w` who is blocked. The kernel needs `CONFIG_MAGIC_SYSRQ_SERIAL`.
    pub fn sysrq(&self, key: char) -> Result<(), QmpError> {
        let (qmp, socket) = {
            let state = self.lock();
            (state.qemu.qmp.clone(), state.plan.console_socket())
        };
        let mut line = UnixStream::connect(socket)?;
        qmp.execute(qapi::qmp::chardev_send_break { id: "console".into() })?;
        line.write_all(key.encode_utf8(&mut [0; 4]).as_bytes())?;
        // QEMU hands a byte to the UART when the guest has room for it; closing at once could lose it.
        thread::sleep(Duration::from_millis(100));
        Ok(())
    }

    /// Asks a hung guest for the backtraces of its CPUs and its blocked tasks, then ends it with a panic. Returns what
    /// the console said meanwhile; `patience` is the most each of the two halves takes. Afterwards
    /// [`Machine::health`] is `Crashed`, with the place where the guest was caught.
    pub fn interrogate(&self, patience: Duration) -> Result<String, QmpError> {
        let from = self.console().len()?;
        for key in ['l', 'w'] {
            self.sysrq(key)?;
        }
        self.settle(from, patience)?;
        let qmp = self.qmp();
        match qmp.execute(qapi::qmp::inject_nmi {}) {
            Ok(_) | Err(QmpError::Closed(_)) => {}
            Err(error) => return Err(error),
        }
        self.wait_exit(patience);
        let (bytes, _) = self.console().read_from(from)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().map(crate::console::clean).collect::<Vec<_>>().join("\n"))
    }

    /// Waits until the console has stood still for a while.
    fn settle(&self, from: u64, patience: Duration) -> Result<(), QmpError> {
        let begun = Instant::now();
        let (mut length, mut grew) = (from, Instant::now());
        while begun.elapsed() < patience && grew.elapsed() < STILL {
            thread::sleep(Duration::from_millis(50));
            let now = self.console().len()?;
            if now != length {
                (length, grew) = (now, Instant::now());
            }
        }
        Ok(())
    }
}
