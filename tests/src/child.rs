//! Processes that end with the test that started them.

use crate::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::process::{Command, ExitStatus};

/// A server process. Dropped, it is killed and reaped; should the test itself be killed, the kernel
/// kills it (`setpriv --pdeathsig`).
pub struct Child {
    process: std::process::Child,
    name: String,
}

/// As whom a child runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunAs {
    /// As the test itself: root.
    Root,
    /// As this user and group, without a capability and without a way to one.
    User(u32),
}

impl Child {
    /// A command that becomes `program` in a clean environment. It must be spawned from a thread
    /// that lives as long as the child should.
    pub(crate) fn command(program: &OsStr, run_as: RunAs) -> Command {
        let mut command = Command::new("setpriv");
        command.env_clear().env("PATH", "/usr/bin:/bin");
        if let RunAs::User(id) = run_as {
            command.args([
                &format!("--reuid={id}"),
                &format!("--regid={id}"),
                "--clear-groups",
                "--inh-caps=-all",
                "--ambient-caps=-all",
                "--bounding-set=-all",
                "--no-new-privs",
            ]);
        }
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Starts it.
    pub(crate) fn spawn(command: &mut Command, name: &str) -> Self {
        let process = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self {
            process,
            name: name.to_owned(),
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it is gone, and how it went.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("waiting for a child")
    }

    /// Waits for its end, as long as that takes.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().expect("waiting for a child")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.id().cast_signed());
        kill(id, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let what = format!("the end of {} after SIGTERM", self.name);
        eventually(&what, || self.ended())
    }

    /// Ends it with no chance to clean up.
    pub fn kill(&mut self) {
        self.process.kill().expect("killing a child");
        self.process.wait().expect("waiting for a child");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell of an error.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
