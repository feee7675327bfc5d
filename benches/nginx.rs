//! Private nginx servers: the upstream that everybody calls, and two that Tollgate is compared with.
//!
//! Each runs under a shell that ends it when its standard input ends, so that none outlives the benchmark.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);
const RUN: &str = r#""$@" </dev/null & pid=$!; cat >/dev/null; kill -QUIT $pid 2>/dev/null; wait"#;
/// What Debian's packages call the modules that the Lua needs.
const LUA_MODULES: &str = "\
    load_module /usr/lib/nginx/modules/ndk_http_module.so;\n\
    load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;\n";
const QUOTA: &str = include_str!("nginx/quota.lua");

/// What the upstream answers every call: a small chat completion.
const ANSWER: &str = r#"{"id":"chatcmpl-9f2c","object":"chat.completion","created":1760000000,"model":"house-chat","choices":[{"index":0,"message":{"role":"assistant","content":"The Volga is the longest river of Europe, at about 3,530 kilometres."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":38,"completion_tokens":19,"total_tokens":57,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},"service_tier":"default","system_fingerprint":null}"#;

/// A server; it ends when dropped.
pub struct Nginx {
    shell: Child,
    folder: TempDir,
    pub url: String,
}

impl Nginx {
    pub fn is_installed() -> bool {
        let version = Command::new("nginx")
            .arg("-v")
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|version| version.success())
    }

    /// Answers every call with the same small completion.
    pub fn upstream() -> Self {
        let location =
            format!("location / {{ default_type application/json; return 200 '{ANSWER}'; }}");
        Self::start(1, "", "", &location, &[])
    }

    /// Passes every call on, and nothing else: what any proxy costs.
    pub fn plain(upstream: &str) -> Self {
        let location = "location / { proxy_pass http://upstream; proxy_buffering off; }";
        Self::start(2, "", &ahead(upstream), location, &[])
    }

    /// Reserves and settles with Tollgate's own scripts, from Lua.
    pub fn with_quota(upstream: &str, settings: &str) -> Self {
        let location = "\
            location / {\n\
                access_by_lua_block { require('quota').reserve() }\n\
                proxy_set_header Authorization 'Bearer sk-the-routes-own';\n\
                proxy_pass http://upstream;\n\
                body_filter_by_lua_block { require('quota').read() }\n\
                log_by_lua_block { require('quota').settle() }\n\
            }";
        let files = [("quota.lua", QUOTA), ("settings.lua", settings)];
        Self::start(2, LUA_MODULES, &ahead(upstream), location, &files)
    }

    fn start(
        workers: usize,
        modules: &str,
        ahead: &str,
        location: &str,
        files: &[(&str, &str)],
    ) -> Self {
        let folder = TempDir::new().expect("there is a place for temporary files");
        let at = folder.path();
        for (name, text) in files {
            fs::write(at.join(name), text).expect("a file");
        }
        let port = free_port();
        let lua = if modules.is_empty() {
            String::new()
        } else {
            // Each worker has chance of its own: with the same seed they would make the same ids.
            format!(
                "lua_package_path '{}/?.lua;;';\n\
                 init_worker_by_lua_block {{ math.randomseed(ngx.now() * 1000 + ngx.worker.pid()) }}",
                at.display()
            )
        };
        let text = format!(
            "{modules}user root;\ndaemon off;\nworker_processes {workers};\npid {folder}/pid;\nerror_log {folder}/error.log warn;\n\
             events {{ worker_connections 2048; }}\n\
             http {{\naccess_log off;\ntcp_nodelay on;\nkeepalive_requests 1000000000;\nkeepalive_timeout 300s;\n\
             client_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\nfastcgi_temp_path {folder}/f;\n\
             uwsgi_temp_path {folder}/u;\nscgi_temp_path {folder}/s;\nclient_body_buffer_size 64k;\n{lua}\n{ahead}\n\
             server {{\nlisten 127.0.0.1:{port};\n{location}\n}}\n}}\n",
            folder = at.display(),
        );
        let config = at.join("nginx.conf");
        fs::write(&config, text).expect("a file");
        let shell = Command::new("sh")
            .args(["-c", RUN, "sh", "nginx", "-p"])
            .arg(at)
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(at.join("error.log"))
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let server = Self {
            shell,
            folder,
            url: format!("http://127.0.0.1:{port}"),
        };
        server.wait_until_it_listens(port);
        server
    }

    fn wait_until_it_listens(&self, port: u16) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || fs::read_to_string(self.folder.path().join("error.log"));
            let late = began.elapsed() > PATIENCE;
            assert!(
                !late,
                "nginx does not start (scripts/bench installs it): {:?}",
                said()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The master's process id: its workers are its children.
    pub fn pid(&self) -> u32 {
        let path = self.folder.path().join("pid");
        let pid = fs::read_to_string(Path::new(&path)).expect("nginx wrote its pid");
        pid.trim().parse().expect("a number")
    }

    /// What it complained of.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The way to the upstream, with connections that are kept.
fn ahead(upstream: &str) -> String {
    let host = upstream.trim_start_matches("http://");
    format!(
        "upstream upstream {{ server {host}; keepalive 256; keepalive_requests 1000000000; }}\n\
         proxy_http_version 1.1;\nproxy_set_header Connection '';"
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}
