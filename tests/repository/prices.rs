//! The prices in docs/tools.md are those in the descriptions of the tools.

use std::collections::BTreeMap;

use crate::common::{Place, Server, like_the_seed, sandbox};
use regex_lite::Regex;

/// Billed tools with their price in dollars, `None` if there is no documented price.
type Prices = BTreeMap<String, Option<String>>;

fn is_billed(description: &str) -> bool {
    description.to_lowercase().contains("billed")
}

/// Returns the price in the description of a billed tool.
fn price_in(description: &str) -> Option<String> {
    let with_price = Regex::new(r"Billed: \$(\d+\.\d\d) a call\.").unwrap();
    let price = with_price.captures(description).map(|found| found[1].to_owned());
    assert!(
        price.is_some() || description.contains("Billed; the answer states its cost."),
        "it is billed in other words: {description}"
    );
    price
}

/// Reads the first paragraph of the section on billing.
fn documented(document: &str) -> Prices {
    let (_, section) = document.split_once("\n## Billing\n\n").unwrap();
    let (paragraph, _) = section.split_once("\n\n").unwrap();
    let with_price = Regex::new(r"\$(\d+\.\d\d)\s+for\s+`(\w+)`").unwrap();
    let without = Regex::new(r"no\s+price\s+for\s+`(\w+)`").unwrap();
    let tools: Vec<_> = with_price
        .captures_iter(paragraph)
        .map(|found| (found[2].to_owned(), Some(found[1].to_owned())))
        .chain(without.captures_iter(paragraph).map(|found| (found[1].to_owned(), None)))
        .collect();
    let named = Regex::new(r"`\w+_\w+`").unwrap().find_iter(paragraph).count();
    assert_eq!(tools.len(), named, "a tool is named without a price: {paragraph}");
    let prices: Prices = tools.into_iter().collect();
    assert_eq!(prices.len(), named, "a tool is named twice: {paragraph}");
    prices
}

#[tokio::test(flavor = "multi_thread")]
async fn every_billed_tool_has_the_price_of_its_description_in_the_documents() {
    let sandbox = sandbox(like_the_seed()).await;
    let server = Server::start(&Place::new(&sandbox)).await;
    let tools = server.client.list_all_tools().await.unwrap();
    let described: Prices = tools
        .iter()
        .map(|tool| (tool.name.to_string(), tool.description.as_deref().unwrap()))
        .filter(|(_, description)| is_billed(description))
        .map(|(tool, description)| (tool, price_in(description)))
        .collect();
    assert!(described.values().any(Option::is_some), "{described:?}");
    assert_eq!(documented(include_str!("../../docs/tools.md")), described);
}

#[test]
fn a_price_is_read_with_its_tool() {
    let paragraph = "\n## Billing\n\n$0.05 for `a_b`,\n$0.10 for `c_d`. It documents no price for `e_f`.\n\n$1.00 for `g_h`";
    let read = documented(paragraph);
    let expected = [("a_b", Some("0.05")), ("c_d", Some("0.10")), ("e_f", None)];
    assert_eq!(read, expected.map(|(tool, price)| (tool.to_owned(), price.map(ToOwned::to_owned))).into());
    assert!(!is_billed("Lists models."));
    assert_eq!(price_in("Asks. Billed: $0.10 a call. Not a diagnosis."), Some("0.10".to_owned()));
    assert_eq!(price_in("Asks. Billed; the answer states its cost."), None);
}
