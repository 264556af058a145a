//! Facts of this machine, from where Linux tells them; elsewhere little is known, and said so.

use std::time::{SystemTime, UNIX_EPOCH};

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|l| l.split(':').next().is_some_and(|n| n.trim() == name))?;
    line.split_once(':').map(|l| l.1.trim())
}

/// The processor's name.
pub fn processor() -> String {
    let text = text("/proc/cpuinfo");
    let name = field(&text, "model name").unwrap_or(std::env::consts::ARCH);
    name.split_whitespace().collect::<Vec<_>>().join(" ").replace([',', '"'], " ")
}

/// Mean clock of all processors, in MHz, where it is told.
pub fn clock_mhz() -> Option<f64> {
    let text = text("/proc/cpuinfo");
    let clocks: Vec<f64> = text
        .lines()
        .filter(|l| l.starts_with("cpu MHz"))
        .filter_map(|l| l.split_once(':')?.1.trim().parse().ok())
        .collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}

/// Bytes of the largest cache of processor 0; 0 if not told.
pub fn llc_bytes() -> u64 {
    let size = |i: u32| {
        let text = text(&format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size"));
        let text = text.trim();
        let scaled = [('K', 1u64 << 10), ('M', 1 << 20), ('G', 1 << 30)];
        let unit = scaled.iter().find(|(c, _)| text.ends_with(*c));
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).parse::<u64>().ok()?;
        number.checked_mul(unit.map_or(1, |u| u.1))
    };
    (0..8).filter_map(size).max().unwrap_or(0)
}

/// Bytes of memory in all and what of it is free for programs; 8 GiB and half of it if not told.
pub fn memory_bytes() -> [u64; 2] {
    let text = text("/proc/meminfo");
    let kib = |name: &str| field(&text, name)?.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024);
    let all = kib("MemTotal").unwrap_or(8 << 30);
    [all, kib("MemAvailable").unwrap_or(all / 2)]
}

/// Seconds of processor time that others than this process have taken since the machine started, the hypervisor's
/// included; 0 where it is not told. Counted in hundredths of a second.
pub fn others_s() -> f64 {
    let (all, own) = (text("/proc/stat"), text("/proc/self/stat"));
    let numbers = |line: &str| line.split_whitespace().filter_map(|w| w.parse::<u64>().ok()).collect::<Vec<_>>();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first two.
    let all = numbers(all.lines().next().unwrap_or_default());
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| all.get(*i)).sum();
    // Behind the name in brackets, which may have anything in it, come the state and ten fields, then user and system
    // time.
    let own: u64 = own
        .rsplit_once(')')
        .map_or(0, |(_, rest)| rest.split_whitespace().skip(11).take(2).filter_map(|w| w.parse::<u64>().ok()).sum());
    busy.saturating_sub(own) as f64 / 100.0
}

/// The day in Greenwich, as in 2026-11-29.
pub fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    day(seconds / 86400)
}

/// The day so many days after 1970-01-01.
fn day(mut days: u64) -> String {
    let leap = |y: u64| y.is_multiple_of(4) && !y.is_multiple_of(100) || y.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year:04}-{:02}-{:02}", month + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_by_hand() {
        for (days, wanted) in [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_786, "2026-11-29")] {
            assert_eq!(day(days), wanted);
        }
    }

    #[test]
    fn this_machine_says_something() {
        let [all, free] = memory_bytes();
        assert!(!processor().is_empty() && free <= all && date().len() == 10);
        // Others include what waits here: this process, asleep, takes nothing.
        let before = others_s();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let taken = others_s() - before;
        // Both are counted in hundredths, each by itself.
        assert!((-0.05..0.1 * 4096.0).contains(&taken), "{taken}");
    }
}
