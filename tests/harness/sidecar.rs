//! The real binary as a process of its own: started, asked, told to stop, or killed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::client::{Answer, get};
use super::wait::until;

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

/// The rest of the line is a program: it runs with the shell's own process id, and dies when our end of its standard
/// input is closed, which even a killed test process does.
pub const DIES_WITH_US: &str =
    r#"exec 3<&0; (cat <&3 >/dev/null; kill -9 $$) >/dev/null 2>&1 & exec "$@" </dev/null 3<&-"#;

/// How long a sidecar may take to say that it is ready.
const STARTING: Duration = Duration::from_secs(30);

/// A sidecar that is running, or was.
pub struct Sidecar {
    process: Child,
    /// What it said on stderr.
    said: Arc<Mutex<String>>,
    /// Base URLs.
    pub proxy: String,
    pub control: String,
    pub health: String,
}

/// A sidecar that never got ready: how it ended, and what it said.
#[derive(Debug)]
pub struct NotStarted {
    pub status: Option<ExitStatus>,
    pub said: String,
}

impl Sidecar {
    /// Starts one and waits for its ready line.
    #[track_caller]
    pub fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    /// The same with these variables in its environment.
    #[track_caller]
    pub fn start_with(config: &Path, environment: &[(&str, &str)]) -> Self {
        Self::try_start(config, environment).unwrap_or_else(|failed| {
            panic!(
                "the sidecar did not start ({:?}): {}",
                failed.status, failed.said
            )
        })
    }

    /// The same where it may fail.
    pub fn try_start(config: &Path, environment: &[(&str, &str)]) -> Result<Self, NotStarted> {
        Self::serve(
            Command::new("sh").envs(environment.iter().copied()),
            Some(config),
        )
    }

    /// Starts one in a directory, with whatever configuration is there.
    pub fn try_start_in(
        directory: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self, NotStarted> {
        let mut shell = Command::new("sh");
        let shell = shell.current_dir(directory);
        Self::serve(shell.envs(environment.iter().copied()), None)
    }

    fn serve(shell: &mut Command, config: Option<&Path>) -> Result<Self, NotStarted> {
        let named = config.map(|config| [OsStr::new("--config"), config.as_os_str()]);
        let mut process = shell
            .args(["-c", DIES_WITH_US, "sh", BINARY, "serve", "--json"])
            .args(named.into_iter().flatten())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = process.stderr.take().expect("a pipe");
        let kept = said.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let stdout = process.stdout.take().expect("a pipe");
        let (line, first_line) = mpsc::channel();
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut first = String::new();
            let _ = stdout.read_line(&mut first);
            let _ = line.send(first);
            // Read on, so that it never blocks on a full pipe.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        let first_line = first_line.recv_timeout(STARTING).unwrap_or_default();
        let Ok(ready) = serde_json::from_str::<Value>(&first_line) else {
            let _ = process.kill();
            let status = process.wait().ok();
            // Its last words may still be on their way.
            let _ = reader.join();
            let said = format!("{first_line}{}", said.lock().unwrap());
            return Err(NotStarted { status, said });
        };
        let url = |name: &str| {
            ready[name]
                .as_str()
                .unwrap_or_else(|| panic!("{name}: {ready}"))
                .to_owned()
        };
        Ok(Self {
            proxy: url("proxy"),
            control: url("control"),
            health: url("health"),
            process,
            said,
        })
    }

    /// `kill -9`: it gets no chance to do anything.
    pub fn kill(&mut self) {
        self.process.kill().expect("a running sidecar");
        self.process.wait().expect("a killed process ends");
    }

    /// SIGTERM, as an orchestrator sends it.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// SIGHUP: it reads its configuration again.
    pub fn ask_to_reload(&self) {
        self.signal("HUP");
    }

    /// Its process id: the shell that started it has become it.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.pid().to_string()])
            .status();
        assert!(
            sent.expect("kill runs").success(),
            "the sidecar is gone: {}",
            self.said()
        );
    }

    /// Waits until it has ended by itself.
    pub async fn exited(&mut self) -> ExitStatus {
        until("the sidecar exits", async || {
            self.process.try_wait().expect("a child")
        })
        .await
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("a child").is_none()
    }

    /// What it said on stderr so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The most memory it has had so far, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).expect("a running sidecar");
        let mut lines = status.lines();
        let peak = lines.find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        peak.expect("a peak").trim().parse().expect("a number")
    }

    /// What readiness answers now.
    pub async fn readiness(&self) -> Answer {
        get(format!("{}/readyz", self.health)).send().await
    }

    /// What a metric without labels says now.
    pub async fn metric(&self, name: &str) -> u64 {
        let page = get(format!("{}/metrics", self.health)).send().await.text();
        let mut lines = page.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {page}"))
            .parse()
            .expect("a number")
    }

    /// Waits until readiness answers this status.
    pub async fn until_ready_is(&self, status: u16) -> Answer {
        let what = format!("readiness answers {status}");
        until(&what, async || {
            let answer = self.readiness().await;
            (answer.status.as_u16() == status).then_some(answer)
        })
        .await
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- the sidecar at {} said:\n{}---",
                self.proxy,
                self.said()
            );
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a command of the binary to its end.
pub fn run(config: &Path, arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .args(arguments)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// Runs a command in a directory, with whatever configuration is there.
pub fn run_in(directory: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .current_dir(directory)
        .envs(environment.iter().copied())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// Runs a command that must succeed, and returns what it printed.
#[track_caller]
pub fn run_well(config: &Path, arguments: &[&str]) -> String {
    let output = run(config, arguments);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "tollgate {arguments:?}: {}\n{out}{err}",
        output.status
    );
    out.into_owned()
}
