//! What the JSON reader says of files that are not trusted.

use moesim_core::Diag;

/// Its words, without the place that it puts behind them.
pub(crate) fn words(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.strip_suffix(&format!(" at line {} column {}", e.line(), e.column())).unwrap_or(&text).to_string()
}

/// A file that is not `what`, and where it ceases to be.
pub(crate) fn broken(what: &str, e: &serde_json::Error) -> Diag {
    Diag::input(format!("is no {what}: {}", words(e))).place(format!("{}:{}", e.line(), e.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_named_once() {
        let e = serde_json::from_str::<Vec<u8>>("[1,\n \"at line 3\"]").unwrap_err();
        let text = broken("list", &e).to_string();
        assert_eq!(text, "2:12: is no list: invalid type: string \"at line 3\", expected u8");
    }
}
