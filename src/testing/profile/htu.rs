//! How servers compare an `htu` with the URL of a request, if not by the normal form of both. Pure.
//!
//! The first argument is the URL of the request, without query and fragment; the second is the `htu`.

/// Byte by byte.
pub(super) fn exactly(url: &str, htu: &str) -> bool {
    url == htu
}

/// Byte by byte, but for upper and lower case: in the path, too.
pub(super) fn ignoring_case(url: &str, htu: &str) -> bool {
    url.eq_ignore_ascii_case(htu)
}

/// Byte by byte, after query and fragment of the `htu` are cut off.
pub(super) fn exactly_without_query(url: &str, htu: &str) -> bool {
    url == without_query(htu)
}

/// Ignoring case, query, fragment and slashes at the end.
pub(super) fn loosely(url: &str, htu: &str) -> bool {
    let url = url.trim_end_matches('/');
    url.eq_ignore_ascii_case(without_query(htu).trim_end_matches('/'))
}

/// As `java.net.URI` compares, after the query is cut off: scheme and host ignoring case, the port as it is
/// written (so the default port is another than none), the path exactly but for the case of `%2f`.
pub(super) fn as_java_uri(url: &str, htu: &str) -> bool {
    let (Some(url), Some(htu)) = (split(url), split(without_query(htu))) else {
        return false;
    };
    url.0.eq_ignore_ascii_case(htu.0)
        && escapes_in_upper_case(url.1) == escapes_in_upper_case(htu.1)
}

/// Origin and path.
fn split(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let path = rest.find('/').unwrap_or(rest.len());
    Some(url.split_at(scheme.len() + "://".len() + path))
}

fn without_query(htu: &str) -> &str {
    htu.split(['?', '#']).next().unwrap_or_default()
}

fn escapes_in_upper_case(path: &str) -> String {
    let mut digits = 0;
    let upper = |c: char| {
        if c == '%' {
            digits = 2;
        } else if digits > 0 {
            digits -= 1;
            return c.to_ascii_uppercase();
        }
        c
    };
    path.chars().map(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an `htu` is that of `http://rs.example/a/%2f`: exactly, ignoring case, without query, loosely,
    /// as a Java URI.
    #[test]
    fn each_server_compares_in_its_own_way() {
        let url = "http://rs.example/a/%2f";
        for (htu, verdicts) in [
            ("http://rs.example/a/%2f", [true; 5]),
            ("http://RS.example/a/%2f", [false, true, false, true, true]),
            ("http://rs.example/A/%2f", [false, true, false, true, false]),
            ("http://rs.example/a/%2F", [false, true, false, true, true]),
            (
                "http://rs.example/a/%2f?q",
                [false, false, true, true, true],
            ),
            (
                "http://rs.example/a/%2f/",
                [false, false, false, true, false],
            ),
            ("http://rs.example:80/a/%2f", [false; 5]),
            ("https://rs.example/a/%2f", [false; 5]),
            ("http://rs.example/b", [false; 5]),
            ("/a/%2f", [false; 5]),
        ] {
            let compare = [
                exactly,
                ignoring_case,
                exactly_without_query,
                loosely,
                as_java_uri,
            ];
            assert_eq!(compare.map(|same| same(url, htu)), verdicts, "{htu}");
        }
    }

    #[test]
    fn a_java_uri_without_a_path_has_none() {
        assert!(!as_java_uri("http://rs.example/", "http://rs.example"));
        assert!(!as_java_uri("http://rs.example", "http://rs.example/"));
        assert!(as_java_uri("http://rs.example/", "http://rs.example/"));
    }
}
