//! History.

use crate::house::{House, numbers};
use ringroom::base::limits::{HISTORY_ENTRIES_MAX, PAGE_ENTRIES_MAX};
use serde_json::{Value, json};

#[test]
fn history_is_read_in_pages_from_either_end() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    let receipts: Vec<Value> = (1..=10).map(|nth| house.publish(alice, "a", json!(nth))).collect();
    let data_of = |page: &Value| -> Vec<Value> {
        page["messages"].as_array().unwrap().iter().map(|message| message["data"].clone()).collect()
    };
    let last = house.ok(alice, "room:history", json!({ "room": "a", "limit": 4 }));
    assert_eq!(data_of(&last), numbers(7..=10));
    assert_eq!((&last["more"], &last["gap"], &last["pos"]), (&json!(true), &json!(false), &receipts[9]["pos"]));
    assert_eq!(last["messages"][0]["mid"], receipts[6]["mid"]);
    let before = json!({ "room": "a", "limit": 4, "before": last["messages"][0]["mid"] });
    let before = house.ok(alice, "room:history", before);
    assert_eq!(data_of(&before), numbers(3..=6));
    let first = house.ok(alice, "room:history", json!({ "room": "a", "limit": 4, "before": receipts[2]["pos"] }));
    assert_eq!(data_of(&first), numbers(1..=2));
    assert_eq!((&first["more"], &first["gap"]), (&json!(false), &json!(false)));
    for since in [&receipts[3]["pos"], &receipts[3]["mid"]] {
        let page = house.ok(alice, "room:history", json!({ "room": "a", "limit": 4, "since": since }));
        assert_eq!(data_of(&page), numbers(5..=8));
        assert_eq!((&page["more"], &page["pos"]), (&json!(true), &receipts[7]["pos"]));
    }
    let end = house.ok(alice, "room:history", json!({ "room": "a", "since": receipts[9]["pos"] }));
    assert_eq!((&end["messages"], &end["more"], &end["gap"]), (&json!([]), &json!(false), &json!(false)));
    for bad in [
        json!({ "room": "a", "limit": PAGE_ENTRIES_MAX + 1 }),
        json!({ "room": "a", "since": "x" }),
        json!({ "room": "a", "since": receipts[0]["pos"], "before": receipts[1]["pos"] }),
    ] {
        assert_eq!(house.error(alice, "room:history", bad), "bad_request");
    }
}

#[test]
fn a_reader_of_history_learns_that_its_start_is_gone_whatever_the_page() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    for nth in 0..HISTORY_ENTRIES_MAX + 1 {
        house.publish(alice, "a", json!(nth));
    }
    // The last page is full and ends where the history does.
    for limit in [64, 100] {
        let (mut before, mut seen) = (None, 0);
        let last = loop {
            let mut ask = json!({ "room": "a", "limit": limit });
            if let Some(before) = before {
                ask["before"] = before;
            }
            let page = house.ok(alice, "room:history", ask);
            seen += page["messages"].as_array().unwrap().len();
            if page["more"] == false {
                break page;
            }
            assert_eq!(page["gap"], false);
            before = Some(page["messages"][0]["mid"].clone());
        };
        assert_eq!(seen, HISTORY_ENTRIES_MAX);
        assert_eq!(last["gap"], true, "pages of {limit}");
    }
}
