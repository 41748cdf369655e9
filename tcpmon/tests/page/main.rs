//! The page in a browser: what a user sees, does and survives. Needs `chromedriver` and Chromium;
//! where they are missing it says so and passes, unless `TCPMON_BROWSER=required`.

mod browser;
mod fixture;

use browser::Browser;
use fixture::Fixture;
use serde_json::json;

#[test]
fn the_page_in_a_browser() {
    let Some(browser) = Browser::start() else {
        assert!(
            std::env::var_os("TCPMON_BROWSER").is_none_or(|value| value != "required"),
            "there is no chromedriver"
        );
        eprintln!("skipped: there is no chromedriver");
        return;
    };
    let daemon = Fixture::start(0);
    let address = daemon.address;
    browser.open(&format!("http://{address}/"));

    browser.wait("the verdict", "return headline.textContent.startsWith('3 alerts fire')");
    browser.wait(
        "the alerts",
        "return document.querySelectorAll('.alert[data-severity=critical]').length === 2",
    );
    browser.wait(
        "the destinations",
        "return document.querySelectorAll('#ports > tbody').length === 4",
    );

    the_verdict_says_what_is_wrong(&browser);
    nothing_is_said_twice_of_a_destination(&browser);
    curves_move(&browser);
    destinations_open(&browser);
    an_edge_shows_its_stream(&browser);
    hostile_names_stay_names(&browser);
    it_fits_a_phone_and_the_night(&browser);

    let said = browser.console();
    assert!(said.is_empty(), "the console says {said:?}");
    let origins = browser.run(
        "return [...new Set(performance.getEntriesByType('resource').map(
            (entry) => new URL(entry.name).origin))]",
    );
    assert_eq!(origins, json!([format!("http://{address}")]), "something came from elsewhere");

    drop(daemon);
    browser.wait("the loss", "return headline.textContent === 'The daemon is lost'");
    let _daemon = Fixture::start(address.port());
    browser.wait("the return", "return headline.textContent.startsWith('3 alerts fire')");
    browser.wait(
        "the word of a new start",
        "return document.getElementById('link-text').textContent.includes('started anew')",
    );
    browser.wait(
        "the stream again",
        "return document.getElementById('stream-state').textContent.includes('seen')",
    );
}

fn the_verdict_says_what_is_wrong(browser: &Browser) {
    let said = browser.run("return document.getElementById('subline').textContent");
    let said = said.as_str().expect("a text");
    assert!(said.starts_with("connect() failed 120 times"), "{said}");
    assert!(said.contains("port. Fullest destination: 10.0.0.2:5432"), "{said}");
    assert_eq!(
        browser.run("return document.querySelector('.alert li .whole').textContent"),
        json!("sysctl -w"),
        "an option may be parted from its command"
    );
}

fn nothing_is_said_twice_of_a_destination(browser: &Browser) {
    let said = browser.run(
        "return [...document.querySelectorAll('.alert')].slice(0, 2).map((card) => [
             card.querySelector('.muted').hidden,
             [...card.querySelectorAll('li')].map((item) => item.textContent.split(':')[0])])",
    );
    assert_eq!(
        said,
        json!([[false, ["Keep connections", "Offer more ports"]], [true, ["Something else."]]])
    );
}

fn curves_move(browser: &Browser) {
    for chart in ["chart-use", "chart-tw", "chart-conn"] {
        let picture = format!("document.querySelector('#{chart} canvas')?.toDataURL()");
        browser.wait(chart, &format!("return {picture} !== undefined"));
        let before = browser.run(&format!("return {picture}"));
        browser.wait(chart, &format!("return {picture} !== {before}"));
    }
    browser.wait(
        "the present value below a curve",
        "return /worker.service2\\d,\\d00/.test(
            document.querySelector('#chart-tw .series').textContent)",
    );
}

fn destinations_open(browser: &Browser) {
    browser.run("document.querySelector('.drill').focus(); document.activeElement.click()");
    let owners = browser
        .run("return document.querySelector('#ports .detail:not([hidden]) .owners').innerText");
    let owners = owners.as_str().expect("a text");
    assert!(owners.contains("worker.service") && owners.contains("27,900"), "{owners}");
    // Reports come, and the row stays as it is.
    let asked = "performance.getEntriesByType('resource').filter(
        (entry) => entry.name.endsWith('/report')).length";
    let before = browser.run(&format!("return {asked}"));
    browser.wait("another report", &format!("return {asked} > {before}"));
    assert_eq!(
        browser.run("return document.activeElement.getAttribute('aria-expanded')"),
        json!("true"),
        "a report took the focus away or folded the row"
    );
    browser.run(
        "const find = document.getElementById('find');
         find.value = 'crawler'; find.dispatchEvent(new Event('input', { bubbles: true }))",
    );
    browser
        .wait("the row found", "return document.querySelectorAll('#ports > tbody').length === 1");
    browser.run(
        "const find = document.getElementById('find');
         find.value = ''; find.dispatchEvent(new Event('input', { bubbles: true }))",
    );
}

fn an_edge_shows_its_stream(browser: &Browser) {
    browser.run(
        "const edge = [...document.querySelectorAll('.edge')].find(
            (edge) => edge.getAttribute('aria-label').startsWith('FIN_WAIT2 to TIME_WAIT'));
         edge.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }))",
    );
    browser.wait("its rows", "return document.querySelectorAll('#stream-rows tr').length > 5");
    browser.wait("a gap", "return document.querySelector('#stream-rows .gap') !== null");
    assert_eq!(
        browser.run(
            "return [...document.querySelectorAll('#stream-rows tr:not(.gap)')].every(
                (row) => row.children[4].textContent.startsWith('FIN_WAIT2 \\u2192 TIME_WAIT'))"
        ),
        json!(true),
        "the stream has other transitions too"
    );
}

fn hostile_names_stay_names(browser: &Browser) {
    assert_eq!(browser.run("return document.images.length"), json!(0));
    assert_eq!(
        browser.run("return document.body.innerText.includes('<img src=x onerror=alert(1)>')"),
        json!(true)
    );
}

fn it_fits_a_phone_and_the_night(browser: &Browser) {
    browser.emulate(
        "Emulation.setDeviceMetricsOverride",
        &json!({"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true}),
    );
    browser.wait(
        "a page that is as wide as a phone",
        "return document.documentElement.scrollWidth <= 390",
    );
    browser.emulate("Emulation.clearDeviceMetricsOverride", &json!({}));
    let shade = "return getComputedStyle(document.body).backgroundColor";
    let mut seen = Vec::new();
    for scheme in ["light", "dark"] {
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.emulate("Emulation.setEmulatedMedia", &json!({"features": feature}));
        seen.push(browser.run(shade));
    }
    assert_ne!(seen[0], seen[1]);
}
