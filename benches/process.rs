//! What a process has taken of the machine, as the kernel counts it.

use std::fs;

/// The kernel's unit in `/proc/PID/stat`, on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of a process and its children.
pub fn cpu_s(pid: u32) -> f64 {
    let own = own_cpu_s(pid);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|it| it.parse().ok());
    own + children.map(own_cpu_s).sum::<f64>()
}

fn own_cpu_s(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold spaces; what follows its bracket does not.
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    (fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0)) / TICKS_PER_SECOND
}

/// Memory that is resident, of a process and its children, in bytes.
pub fn resident_bytes(pid: u32) -> f64 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|it| it.parse().ok());
    own_resident_bytes(pid) + children.map(own_resident_bytes).sum::<f64>()
}

/// The same of a process without its children.
pub fn own_resident_bytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0.0);
    kib * 1024.0
}
