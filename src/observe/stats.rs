//! Statistics: the reports of all shards, each by itself and added up.
//! Invariant: a shard that does not answer in time is missing and named, never waited for.

use super::collector::Seen;
use crate::io::timing::Times;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The body of `/stats`.
pub fn body(seen: &Seen, driver: &str, uptime: Duration) -> Value {
    let each: Vec<Value> = seen.fresh().map(|report| json!(report)).collect();
    let mut total = Value::Null;
    for value in &each {
        add(&mut total, value);
    }
    let mut times = Times::default();
    seen.fresh().for_each(|report| times.merge(&report.times));
    if let (Value::Object(total), Value::Object(mut times)) = (&mut total, json!(times)) {
        total.remove("shard");
        // Quantiles of all, not the sum of quantiles.
        total.append(&mut times);
    }
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": uptime.as_millis() as u64,
        "io": driver,
        "total": total,
        "shards": each,
        "silent": seen.silent(),
    })
}

/// Adds numbers to numbers of the same name, at any depth. The largest counts where the name says
/// that it is one (`longest_..`, `.._max`).
fn add(total: &mut Value, value: &Value) {
    match (total, value) {
        (Value::Object(total), Value::Object(value)) => {
            for (name, value) in value {
                let is_extreme = name.starts_with("longest") || name.ends_with("_max");
                match total.get_mut(name) {
                    Some(before) if is_extreme => {
                        if value.as_f64() > before.as_f64() {
                            *before = value.clone();
                        }
                    }
                    Some(before) => add(before, value),
                    None => drop(total.insert(name.clone(), value.clone())),
                }
            }
        }
        (total @ Value::Null, Value::Object(_)) => {
            *total = Value::Object(Map::new());
            add(total, value);
        }
        (total, value) => {
            if let (Some(a), Some(b)) = (total.as_u64(), value.as_u64()) {
                *total = json!(a.saturating_add(b));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::counters::Report;

    #[test]
    fn numbers_of_the_same_name_are_added_and_extremes_are_kept() {
        let mut total = Value::Null;
        add(&mut total, &json!({"edge": {"reads": 2, "refused": {"path": 1}}, "step_ns_max": 9, "name": "a"}));
        add(&mut total, &json!({"edge": {"reads": 3, "refused": {"head": 4}}, "step_ns_max": 7, "name": "b"}));
        assert_eq!(
            total,
            json!({"edge": {"reads": 5, "refused": {"path": 1, "head": 4}}, "step_ns_max": 9, "name": "a"})
        );
    }

    #[test]
    fn a_silent_shard_is_named() {
        let report =
            |shard| Report { shard, edge: Default::default(), core: Default::default(), times: Default::default() };
        let body = body(&Seen::nothing(3).after(vec![report(0), report(2)]), "epoll", Duration::from_millis(5));
        assert_eq!(body["silent"], json!([1]));
        assert_eq!(body["shards"].as_array().unwrap().len(), 2);
        assert_eq!(body["total"]["edge"]["reads"], json!(0));
        assert!(body["total"].get("shard").is_none());
    }
}
