//! Traces of Azure's public data set (Azure/AzurePublicDataset, 2023 and 2024): TIMESTAMP, ContextTokens, GeneratedTokens.

use super::Requests;
use super::request_table::{Layout, RequestTable, seconds};
use super::stamps::{Clock, requests};
use moesim_core::Result;
use std::path::Path;

pub(super) fn open(path: &Path, rate_scale: f64) -> Result<Requests> {
    let layout = Layout {
        names: ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
        clock: |text| seconds(text).map_or_else(|| timestamp(text), Ok),
        only: Vec::new(),
        failures: false,
    };
    requests(path, RequestTable::open(path, layout)?, Clock { from_first: true, spread: false, rate_scale })
}

const RULE: &str = "write it as 2023-11-16 18:17:03.9799600, or in seconds since 1970";

/// Picoseconds since the year 0 of `YYYY-MM-DD HH:MM:SS[.fraction]`; a time zone is allowed if it is UTC (`Z`, `+00:00`).
fn timestamp(text: &str) -> std::result::Result<i128, &'static str> {
    let text = text.trim_end_matches("+00:00").trim_end_matches('Z');
    let (date, time) = text.split_once([' ', 'T']).ok_or(RULE)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [year, month, day] = fields(date, '-')?;
    let [hour, minute, second] = fields(clock, ':')?;
    let sound = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=month_days(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && fraction.len() <= 12
        && fraction.bytes().all(|b| b.is_ascii_digit());
    if !sound {
        return Err(RULE);
    }
    let years = year - 1;
    let mut days = years * 365 + years / 4 - years / 100 + years / 400 + day;
    days += (1..month).map(|m| month_days(year, m)).sum::<i64>();
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let fraction: i128 = format!("{fraction:0<12}").parse().map_err(|_| RULE)?;
    Ok(i128::from(seconds) * 1_000_000_000_000 + fraction)
}

fn fields(text: &str, separator: char) -> std::result::Result<[i64; 3], &'static str> {
    let mut parts = text.split(separator).map(|p| {
        let digits = (1..=4).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| p.parse().ok()).flatten()
    });
    let mut next = || parts.next().flatten().ok_or(RULE);
    let found = [next()?, next()?, next()?];
    if parts.next().is_some() { Err(RULE) } else { Ok(found) }
}

fn month_days(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_over_midnight_and_leap_days() {
        let gap = |a, b| timestamp(b).unwrap() - timestamp(a).unwrap();
        assert_eq!(gap("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:04.0319600"), 52_000_000_000);
        assert_eq!(gap("2024-02-28 23:59:59", "2024-03-01 00:00:00Z"), 86_401 * 1_000_000_000_000);
        assert_eq!(gap("2023-12-31T23:59:59.5", "2024-01-01 00:00:00.000000+00:00"), 500_000_000_000);
        for bad in
            ["", "2023-11-16", "2023-13-01 00:00:00", "2023-02-29 00:00:00", "2023-11-16 24:00:00", "a b", "-1 0:0:0"]
        {
            assert!(timestamp(bad).is_err(), "{bad}");
        }
    }
}
