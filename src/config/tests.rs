//! A configuration means what it says, or says what is wrong with it and where.

use super::*;
use crate::ledger::sqlite::file::Durability;
use crate::money::Nanos;

const SHIPPED: &str = include_str!("../../config/default.toml");

/// Where sidecars that are more than one have theirs.
const BACKENDS: &str = "
[store]
url = \"redis://127.0.0.1:6379\"
[ledger]
url = \"postgres://tollgate@127.0.0.1/tollgate\"
";

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = variables.iter().copied().collect();
    Config::parse(Path::new("test.toml"), text, &environment)
}

/// The error of `text` below the backends: its line counted from the start of `text`, its key, its message.
#[track_caller]
fn refused(text: &str) -> (usize, String, String) {
    let whole = format!("{text}{BACKENDS}");
    let error = parse(&whole, &[]).expect_err("this configuration is wrong");
    let (line, key) = (error.line.expect("a line"), error.key.expect("a key"));
    (line, key, error.message)
}

/// The same for one route with an upstream, and `more` settings from the fourth line on.
#[track_caller]
fn route_refused(more: &str) -> (usize, String, String) {
    refused(&format!(
        "[[route]]\nprefix = \"/x\"\nupstream = \"http://127.0.0.1\"\n{more}"
    ))
}

/// Takes away the `#` before each setting that the shipped file only shows.
fn uncommented() -> String {
    let shown = |line: &str| line.len() > 1 && line.starts_with('#') && !line.starts_with("# ");
    let lines = SHIPPED.lines();
    let lines: Vec<&str> = lines
        .map(|line| if shown(line) { &line[1..] } else { line })
        .collect();
    lines.join("\n")
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let bare = parse("", &[]).unwrap();
    assert_eq!(parse(SHIPPED, &[]).unwrap(), bare);

    let variables = [("OPENAI_API_KEY", "k"), ("TOLLGATE_CONTROL_TOKEN", "t")];
    let mut shown = uncommented();
    if !cfg!(feature = "otlp") {
        let error = parse(&shown, &variables).expect_err("nothing is ignored");
        assert_eq!(error.key.as_deref(), Some("trace.otlp_url"));
        shown = shown.replace("otlp_url =", "#");
    }
    let shown = parse(&shown, &variables).unwrap();
    let least = "
        [[route]]
        prefix = '/openai'
        upstream = 'https://api.openai.com'
        meter = 'openai'
        credential = { header = 'authorization', value = 'Bearer k' }
        markup_percent = '20'
        [[route]]
        prefix = '/tools/search'
        upstream = 'http://search.internal:9000'
        meter = 'flat'
        charge = { credits = '0.005', resource = 'tool_calls' }
    ";
    let burst = crate::quota::Burst::new;
    assert_eq!(shown.throttle.account, burst(200, 400));
    assert_eq!(shown.throttle.key, burst(100, 200));
    assert_eq!(bare.throttle, crate::quota::Throttle::default());
    assert_eq!(shown.routes, Config::demo(least).unwrap().routes);
    assert_eq!(
        shown.listen.control_token,
        Some(Secret::from("t".to_owned()))
    );
    assert_eq!(shown.store.max_age_ms, bare.store.max_age_ms);
}

/// Serde lists the keys it knows when it meets one it does not.
#[test]
fn every_setting_is_documented() {
    let known = |text: &str| -> Vec<String> {
        let message = Config::demo(text).unwrap_err().message;
        let list = message.split_once("expected one of ");
        let list = list.or_else(|| message.split_once("expected "));
        let words = list.expect("serde lists the keys").1.split(['`', ',']);
        let words = words
            .map(str::trim)
            .filter(|word| !word.is_empty() && *word != "or");
        words.map(str::to_owned).collect()
    };
    let file: toml::Table = uncommented().parse().unwrap();
    let later = ["companion", "jwt", "stripe"];
    let mut seen = 0;
    for section in known("[zzz]") {
        if later.contains(&section.as_str()) {
            continue;
        }
        let value = file.get(&section).unwrap_or_else(|| panic!("[{section}]"));
        let tables: Vec<&toml::Table> = match value {
            toml::Value::Array(items) => items.iter().filter_map(|item| item.as_table()).collect(),
            value => value.as_table().into_iter().collect(),
        };
        let header = if value.is_array() {
            format!("[[{section}]]")
        } else {
            format!("[{section}]")
        };
        for key in known(&format!("{header}\nzzz = 1")) {
            let documented = tables.iter().any(|table| table.contains_key(&key));
            assert!(
                documented || later.contains(&key.as_str()),
                "{section}.{key}"
            );
            seen += 1;
        }
    }
    assert!(seen > 30, "the list of keys was not understood: {seen}");
}

#[test]
fn with_nothing_configured_store_and_ledger_are_one_file() {
    let config = parse("", &[]).unwrap();
    assert_eq!(config.store.url, StoreUrl::Embedded);
    assert_eq!(config.store.durability, Durability::Process);
    assert_eq!(config.ledger.url, LedgerUrl::Sqlite("tollgate.db".into()));
    let variables = [
        ("TOLLGATE__STORE__DURABILITY", "power"),
        ("TOLLGATE__LEDGER__URL", "sqlite:///var/lib/t.db"),
    ];
    let config = parse("", &variables).unwrap();
    assert_eq!(config.store.durability, Durability::Power);
    let file = LedgerUrl::Sqlite("/var/lib/t.db".into());
    assert_eq!(config.ledger.url, file);
}

#[test]
fn a_store_with_another_ones_ledger_says_what_to_use() {
    let (key, message) = unfit("[ledger]\nurl = 'postgres://h/d'\n");
    assert_eq!(key, "store.url");
    assert!(message.contains("redis://"), "{message}");
    let (key, message) = unfit("[store]\nurl = 'redis://h'\n");
    assert_eq!(key, "ledger.url");
    assert!(message.contains("postgres://"), "{message}");
    for nothing in ["sqlite://", "sqlite://:memory:", "sqlite://t.db?mode=ro"] {
        let (key, message) = unfit(&format!("[ledger]\nurl = '{nothing}'\n"));
        assert_eq!(key, "ledger.url");
        assert!(message.contains("path of a file"), "{message}");
    }
    let (key, _) = unfit("[store]\ndurability = 'none'\n");
    assert_eq!(key, "store.durability");
}

/// Where a configuration is wrong that names its own backends, and why.
#[track_caller]
fn unfit(text: &str) -> (String, String) {
    let error = parse(text, &[]).expect_err("this configuration is wrong");
    (error.key.expect("a key"), error.message)
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let (line, key, message) = refused("[listen]\nproxy = '127.0.0.1:0'\nproxi = ''\n");
    assert_eq!((line, key.as_str()), (3, "listen.proxi"));
    assert!(message.starts_with("unknown field `proxi`"), "{message}");
    let (line, key, _) = refused(
        "
[sotre]
",
    );
    assert_eq!((line, key.as_str()), (2, "sotre"));
    let (line, key, _) = route_refused("meter = 'none'\ncredential = { heder = 'x' }\n");
    assert_eq!((line, key.as_str()), (5, "route[0].credential.heder"));
}

#[test]
fn a_missing_key_is_an_error_at_its_section() {
    let (line, key, message) = refused("\n[[route]]\nprefix = '/x'\nmeter = 'none'\n");
    assert_eq!((line, key.as_str()), (2, "route[0]"));
    assert!(message.contains("upstream"), "{message}");
}

#[test]
fn broken_toml_is_an_error_with_its_line() {
    let error = parse("[listen]\nproxy = \n", &[]).unwrap_err();
    assert_eq!(error.line, Some(2));
    let shown = error.to_string();
    assert!(shown.starts_with("test.toml:2: "), "{shown}");
    let twice = parse("[listen]\ndrain_s = 1\ndrain_s = 2\n", &[]).unwrap_err();
    assert_eq!(twice.line, Some(3));
}

#[test]
fn what_is_not_built_says_so() {
    for (key, text) in [
        ("companion", "[companion]\nlisten = 'x'\n"),
        ("jwt", "[jwt]\n"),
        ("stripe", "[stripe]\nmode = 'test'\n"),
        ("identify.trust_header", "[identify]\ntrust_header = true\n"),
    ] {
        let (_, named, message) = refused(text);
        assert_eq!(named, key);
        assert!(message.contains("not built yet"), "{key}: {message}");
    }
    for (key, more) in [
        ("route[0].meter", "meter = 'anthropic'\n"),
        ("route[0].meter", "meter = 'mcp'\n"),
        (
            "route[0].on_short",
            "meter = 'openai'\non_short = 'clamp'\n",
        ),
    ] {
        let (_, named, message) = route_refused(more);
        assert_eq!(named, key);
        assert!(message.contains("not built yet"), "{key}: {message}");
    }
}

#[test]
fn a_bounded_route_has_a_bound_of_its_own_or_the_stores() {
    let route = "[[route]]\nprefix = '/x'\nupstream = 'http://h'\nmeter = 'openai'\n";
    let of = |store: &str, more: &str| {
        let config = Config::demo(&format!("[store]\n{store}\n{route}{more}\n"));
        config.map(|config| config.routes[0].on_store_down)
    };
    let bounded = |credits: &str| Ok(StoreDown::Bounded(Nanos::from_credits(credits).unwrap()));
    let store = "on_store_down = 'bounded'\nbounded_credits = '2'";
    assert_eq!(of("", ""), Ok(StoreDown::Refuse));
    assert_eq!(of(store, ""), bounded("2"));
    assert_eq!(of(store, "bounded_credits = '0.5'"), bounded("0.5"));
    assert_eq!(of(store, "on_store_down = 'refuse'"), Ok(StoreDown::Refuse));
    assert_eq!(
        of("bounded_credits = '3'", "on_store_down = 'bounded'"),
        bounded("3")
    );
    for (store, more, key) in [
        ("", "on_store_down = 'bounded'", "route[0].on_store_down"),
        ("on_store_down = 'bounded'", "", "store.on_store_down"),
        ("bounded_credits = '-1'", "", "store.bounded_credits"),
        ("bounded_journal = ''", "", "store.bounded_journal"),
        ("", "bounded_credits = 'much'", "route[0].bounded_credits"),
        (store, "bounded_credits = '0'", "route[0].on_store_down"),
    ] {
        let error = of(store, more).unwrap_err();
        assert_eq!(error.key.as_deref(), Some(key), "{error}");
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_at_its_line() {
    for (key, text) in [
        ("listen.proxy", "[listen]\nproxy = 'localhost'\n"),
        ("listen.control", "[listen]\ncontrol = '0.0.0.0:8081'\n"),
        ("listen.health", "[listen]\nhealth = '127.0.0.1:8080'\n"),
        ("listen.threads", "[listen]\nthreads = 0\n"),
        ("listen.threads", "[listen]\nthreads = 65\n"),
        ("listen.drain_s", "[listen]\ndrain_s = -1\n"),
        ("listen.drain_s", "[listen]\ndrain_s = 'soon'\n"),
        ("credit.usd", "[credit]\nusd = '0'\n"),
        ("credit.usd", "[credit]\nusd = 0.5\n"),
        (
            "throttle.key.burst",
            "[throttle]\nkey = { per_second = 1, burst = 0 }\n",
        ),
        (
            "throttle.account.per_second",
            "[throttle]\naccount = { per_second = 1000001, burst = 1 }\n",
        ),
        ("shed.max_in_flight", "[shed]\nmax_in_flight = 10001\n"),
        (
            "shed.max_buffered_bytes",
            "[shed]\nmax_buffered_bytes = 0\n",
        ),
        (
            "refusal.exhausted_status",
            "[refusal]\nexhausted_status = 500\n",
        ),
        (
            "refusal.upgrade_url",
            "[refusal]\nupgrade_url = 'ftp://x'\n",
        ),
        ("log.level", "[log]\nlevel = 'loud'\n"),
    ] {
        let (line, named, message) = refused(text);
        assert_eq!((line, named.as_str()), (2, key), "{message}");
    }
    for (key, more) in [
        ("route[0].meter", "meter = 'flat'\n"),
        ("route[0].meter", "meter = 'opnai'\n"),
        (
            "route[0].charge",
            "meter = 'openai'\ncharge = { credits = '1' }\n",
        ),
        ("route[0].unpriced", "meter = 'none'\nunpriced = 'free'\n"),
        (
            "route[0].charge.credits",
            "meter = 'flat'\ncharge = { credits = '9000001' }\n",
        ),
        (
            "route[0].charge.credits",
            "meter = 'flat'\ncharge = { credits = '-1' }\n",
        ),
        (
            "route[0].charge.resource",
            "meter = 'flat'\ncharge = { credits = '1', resource = 'spend' }\n",
        ),
        (
            "route[0].markup_percent",
            "meter = 'openai'\nmarkup_percent = '-1'\n",
        ),
        (
            "route[0].idle_timeout_ms",
            "meter = 'none'\nidle_timeout_ms = 0\n",
        ),
        (
            "route[0].credential.value",
            "meter = 'none'\ncredential = { header = 'a', value = '' }\n",
        ),
        (
            "route[0].credential.header",
            "meter = 'none'\ncredential = { header = 'host', value = 'x' }\n",
        ),
        (
            "route[1].prefix",
            "meter = 'none'\n[[route]]\nprefix = '/x'\nupstream = 'http://y'\nmeter = 'none'\n",
        ),
        (
            "route[1].prefix",
            "meter = 'none'\n[[route]]\nprefix = '/x/'\nupstream = 'http://y'\nmeter = 'none'\n",
        ),
        (
            "route[1].prefix",
            "meter = 'none'\n[[route]]\nprefix = '/tollgate/v1'\nupstream = 'http://y'\nmeter = 'none'\n",
        ),
        (
            "route[1].upstream",
            "meter = 'none'\n[[route]]\nprefix = '/y'\nupstream = 'ftp://y'\nmeter = 'none'\n",
        ),
        (
            "route[1].upstream",
            "meter = 'none'\n[[route]]\nprefix = '/y'\nupstream = 'http://y/?a=b'\nmeter = 'none'\n",
        ),
        (
            "route[1].upstream",
            "meter = 'none'\n[[route]]\nprefix = '/y'\nupstream = 'http://u:p@y'\nmeter = 'none'\n",
        ),
    ] {
        let (_, named, message) = route_refused(more);
        assert_eq!(named, key, "{more}: {message}");
    }
}

#[test]
fn every_body_that_a_route_takes_has_room() {
    let of = |meter: &str| {
        let route = "[[route]]\nprefix = '/x'\nupstream = 'http://x'\nmax_body_bytes = 100\n";
        let shed = "[shed]\nmax_buffered_bytes = 99\n";
        parse(&format!("{shed}{route}{meter}\n{BACKENDS}"), &[])
    };
    let error = of("meter = 'openai'").unwrap_err();
    assert_eq!(error.key.as_deref(), Some("shed.max_buffered_bytes"));
    // Bodies that pass through are never kept.
    assert_eq!(of("meter = 'none'").unwrap().shed.max_buffered_bytes, 99);
}

#[test]
fn a_hold_never_outlives_its_greatest_age() {
    let text = "[store]\nurl = 'redis://h'\ndeadline_s = 60\nmax_age_s = 59\n";
    let error = parse(text, &[]).unwrap_err();
    assert_eq!(error.key.as_deref(), Some("store.max_age_s"));
    assert_eq!(error.line, Some(4));
}

#[test]
fn the_environment_fills_in_and_overrides() {
    let text = format!(
        "[[route]]\nprefix = '/a'\nupstream = 'http://${{HOST}}:1/$${{x}}'\nmeter = 'none'\n{BACKENDS}"
    );
    let error = parse(&text, &[]).unwrap_err();
    assert_eq!(
        (error.line, error.key.as_deref()),
        (Some(3), Some("route[0].upstream"))
    );
    assert!(error.message.contains("`HOST`"), "{error}");

    let text = text.replace("/$${x}", "");
    let variables = [
        ("HOST", "upstream"),
        ("TOLLGATE__LISTEN__DRAIN_S", "7"),
        ("TOLLGATE__ROUTE__0__PREFIX", "/b"),
        ("TOLLGATE__ROUTE__1__PREFIX", "/c"),
        ("TOLLGATE__ROUTE__1__UPSTREAM", "https://c"),
        ("TOLLGATE__ROUTE__1__METER", "flat"),
        ("TOLLGATE__ROUTE__1__CHARGE__CREDITS", "2"),
        ("TOLLGATE__IDENTIFY__TRUST_HEADER", "false"),
        ("TOLLGATE_ADMIN_TOKEN", "not a setting"),
    ];
    let config = parse(&text, &variables).unwrap();
    assert_eq!(config.listen.drain, Duration::from_secs(7));
    let prefixes: Vec<&str> = config.routes.iter().map(|r| r.prefix.as_str()).collect();
    assert_eq!(prefixes, ["/b", "/c"]);
    let uri = config.routes[0].upstream.uri("", None).unwrap();
    assert_eq!(uri.authority().unwrap().as_str(), "upstream:1");

    for (name, key) in [
        ("TOLLGATE__LISTEN__PROXI", "listen.proxi"),
        ("TOLLGATE__ROUTE__5__PREFIX", "route[5]"),
        ("TOLLGATE__STORE__URL__X", "store.url.x"),
        ("TOLLGATE__STORE__DEADLINE_S", "store.deadline_s"),
    ] {
        let error = parse(&text, &[("HOST", "h"), (name, "x")]).unwrap_err();
        assert_eq!(error.key.as_deref(), Some(key), "{error}");
        assert_eq!(error.variable.as_deref(), Some(name), "{error}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    const SECRET: &str = "sk-do-not-show";
    let text = "
        [listen]
        control_token = '${KEY}'
        [store]
        url = 'redis://:${KEY}@127.0.0.1'
        [ledger]
        url = 'postgres://u:${KEY}@127.0.0.1/db'
        [[route]]
        prefix = '/a'
        upstream = 'http://a'
        meter = 'none'
        credential = { header = 'authorization', value = 'Bearer ${KEY}' }
    ";
    let config = parse(text, &[("KEY", SECRET)]).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    assert_eq!(
        config.routes[0].credential.as_ref().unwrap().value,
        "Bearer sk-do-not-show"
    );
    for wrong in [
        "[listen]\nproxy = '${KEY}'",
        "[listen]\ndrain_s = '${KEY}'",
        "[listen]\nproxy = ['${KEY}']",
        "[identify]\ntrust_header = '${KEY}'",
        "listen = '${KEY}'",
        "[store]\nurl = '${KEY}'",
        "[store]\nurl = 'redis://${KEY}:x:y'",
        "[store]\nurl = 'redis://h'\n[ledger]\nurl = 'mysql://${KEY}'",
        "[[route]]\nprefix = '/a'\nmeter = 'none'\nupstream = 'http://${KEY}@h'",
        "[[route]]\nprefix = '/a'\nmeter = '${KEY}'\nupstream = 'http://h'",
        "[[route]]\nprefix = '/a'\nmeter = 'none'\nupstream = 'http://h'\ncredential = '${KEY}'",
    ] {
        let error = parse(wrong, &[("KEY", SECRET)]).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
    // Some secrets are numbers, and then their quotes are easily forgotten.
    for wrong in [
        "[listen]\ncontrol_token = 4087051702",
        "[store]\nurl = 4087051702",
        "[[route]]\nprefix = '/a'\nmeter = 'none'\nupstream = 'http://h'\ncredential = { header = 'x', value = 4087051702 }",
    ] {
        let error = parse(wrong, &[]).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("4087051702"), "{shown}");
        assert!(shown.contains("string"), "{shown}");
    }
}

#[test]
fn the_longest_prefix_wins_at_a_slash() {
    let route = |prefix: &str| {
        format!("[[route]]\nprefix = '{prefix}'\nupstream = 'http://h{prefix}'\nmeter = 'none'\n")
    };
    let text = [route("/"), route("/a"), route("/a/b")].concat();
    let config = Config::demo(&text).unwrap();
    let found = |path: &str| {
        let mut routes = config.routes.iter();
        let first = routes.find_map(|route| Some((route, route.rest(path)?)));
        let (route, rest) = first.unwrap();
        (
            route.prefix.clone(),
            route.upstream.uri(rest, Some("q=1")).unwrap().to_string(),
        )
    };
    let answer = |prefix: &str, uri: &str| (prefix.to_owned(), uri.to_owned());
    assert_eq!(found("/a/b/c"), answer("/a/b", "http://h/a/b/c?q=1"));
    assert_eq!(found("/a/bc"), answer("/a", "http://h/a/bc?q=1"));
    assert_eq!(found("/a"), answer("/a", "http://h/a?q=1"));
    assert_eq!(found("/ab"), answer("/", "http://h/ab?q=1"));
    let config = Config::demo(&route("/a")).unwrap();
    assert!(config.routes[0].rest("/b").is_none());
    assert!(config.routes[0].rest("*").is_none());
}

#[test]
fn a_cluster_is_a_list_of_nodes_with_one_login() {
    let url = |url: &str| {
        let text = format!("[store]\nurl = '{url}'\n[ledger]\nurl = 'postgres://h/d'\n");
        parse(&text, &[]).map(|config| config.store.url)
    };
    let secret = |text: &str| Secret::from(text.to_owned());
    assert_eq!(
        url("rediss://h:1/2"),
        Ok(StoreUrl::Redis(secret("rediss://h:1/2")))
    );
    let nodes = vec![secret("redis://:p@a:1"), secret("redis://:p@b:2")];
    assert_eq!(
        url("redis+cluster://:p@a:1,b:2/"),
        Ok(StoreUrl::Cluster(nodes))
    );
    assert!(url("redis+cluster://a:x").is_err());
    assert!(url("http://a").is_err());
}
