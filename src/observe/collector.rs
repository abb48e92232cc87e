//! What the shards say of themselves, asked for once for all who want to know.
//! Invariants: at most one question is under way; whoever asks meanwhile gets its answers. A shard
//! that does not answer in time is waited for no longer, and what it said last stands in for it, so
//! that no count goes back.

use crate::io::counters::Report;
use crate::io::gateway::Gateway;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one question waits for answers.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Somebody asks at least this often, so that probes are answered from what is known.
const PULSE: Duration = Duration::from_secs(1);
/// So many questions without an answer, each a second at least, are more than a long turn.
pub const MISSED_MAX: u32 = 10;

pub struct Collector {
    gateway: Arc<Gateway>,
    seen: Mutex<Arc<Seen>>,
    /// Held while a question is under way.
    asking: tokio::sync::Mutex<()>,
    patience: Duration,
}

/// All shards, as of the last question.
#[derive(Clone)]
pub struct Seen {
    /// How many questions there were.
    pub number: u64,
    /// In order of the shards.
    pub shards: Vec<Voice>,
}

/// One shard.
#[derive(Clone, Default)]
pub struct Voice {
    /// What it said last, if it ever did.
    pub report: Option<Arc<Report>>,
    /// Questions in a row that it did not answer, the last one included.
    pub missed: u32,
}

impl Seen {
    /// Before the first question.
    pub fn nothing(shards: usize) -> Seen {
        Seen { number: 0, shards: vec![Voice::default(); shards] }
    }

    /// Who did not answer the last question.
    pub fn silent(&self) -> Vec<usize> {
        (0..self.shards.len()).filter(|shard| !self.shards[*shard].answers()).collect()
    }

    /// Who has not answered for so long that only a restart will help.
    pub fn hung(&self) -> Vec<usize> {
        (0..self.shards.len()).filter(|shard| self.shards[*shard].missed >= MISSED_MAX).collect()
    }

    /// The answers to the last question.
    pub fn fresh(&self) -> impl Iterator<Item = &Report> {
        self.shards.iter().filter(|voice| voice.answers()).filter_map(|voice| voice.report.as_deref())
    }

    /// What all shards said last.
    pub fn last(&self) -> impl Iterator<Item = &Report> {
        self.shards.iter().filter_map(|voice| voice.report.as_deref())
    }

    /// After one more question and its answers.
    pub fn after(&self, answers: Vec<Report>) -> Seen {
        let mut next = Seen { number: self.number + 1, shards: self.shards.clone() };
        next.shards.iter_mut().for_each(|voice| voice.missed = voice.missed.saturating_add(1));
        for answer in answers {
            if let Some(voice) = next.shards.get_mut(usize::from(answer.shard)) {
                *voice = Voice { report: Some(Arc::new(answer)), missed: 0 };
            }
        }
        next
    }
}

impl Voice {
    fn answers(&self) -> bool {
        self.report.is_some() && self.missed == 0
    }
}

impl Collector {
    pub fn new(gateway: Arc<Gateway>) -> Collector {
        let seen = Mutex::new(Arc::new(Seen::nothing(gateway.shards())));
        Collector { gateway, seen, asking: tokio::sync::Mutex::default(), patience: PATIENCE }
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// What is known already; at most a pulse and a patience old.
    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks, or waits for the answers to the question that is under way.
    pub async fn ask(&self) -> Arc<Seen> {
        let before = self.seen().number;
        let _asking = self.asking.lock().await;
        let seen = self.seen();
        if seen.number != before {
            return seen;
        }
        let next = Arc::new(seen.after(answers(&self.gateway, self.patience).await));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&next);
        next
    }

    /// Asks for as long as it is polled.
    pub async fn keep(self: Arc<Self>) {
        loop {
            self.ask().await;
            tokio::time::sleep(PULSE).await;
        }
    }
}

/// What each shard says of itself; those that are silent for so long are left out.
pub async fn answers(gateway: &Gateway, patience: Duration) -> Vec<Report> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    gateway.report(move |report| drop(sender.send(report)));
    let mut reports = Vec::with_capacity(gateway.shards());
    let collect = async {
        while let Some(report) = receiver.recv().await {
            reports.push(report);
        }
    };
    // Silence shows in the result.
    let _ = tokio::time::timeout(patience, collect).await;
    reports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::gateway::Settings;

    fn report(shard: u8, reads: u64) -> Report {
        let mut report =
            Report { shard, edge: Default::default(), core: Default::default(), times: Default::default() };
        report.edge.reads = reads;
        report
    }

    #[test]
    fn what_a_silent_shard_said_last_stands_in_for_it() {
        let seen = Seen::nothing(3).after(vec![report(0, 5), report(2, 7)]);
        assert_eq!(seen.silent(), [1], "it never said anything");
        let seen = seen.after(vec![report(0, 6), report(1, 1)]);
        assert_eq!(seen.silent(), [2]);
        assert_eq!(seen.fresh().map(|report| report.edge.reads).collect::<Vec<_>>(), [6, 1]);
        assert_eq!(seen.last().map(|report| report.edge.reads).collect::<Vec<_>>(), [6, 1, 7]);
        assert_eq!(seen.number, 2);
    }

    #[test]
    fn a_shard_hangs_once_it_was_silent_for_many_questions_in_a_row() {
        let mut seen = Seen::nothing(2);
        for _ in 0..MISSED_MAX - 1 {
            seen = seen.after(vec![report(0, 1)]);
            assert_eq!(seen.hung(), [0usize; 0]);
        }
        assert_eq!(seen.after(vec![report(0, 1)]).hung(), [1]);
        assert!(seen.after(vec![report(1, 1)]).after(vec![]).hung().is_empty(), "an answer begins it anew");
    }

    #[test]
    fn an_answer_of_a_shard_that_does_not_exist_is_left_out() {
        assert!(Seen::nothing(1).after(vec![report(9, 1)]).last().next().is_none());
    }

    #[test]
    fn those_who_ask_together_share_one_question() {
        let gateway = Gateway::start(Settings::sample(), Vec::new()).unwrap_or_else(|failed| panic!("{failed}"));
        let mut collector = Collector::new(Arc::new(gateway));
        // On a busy machine too each answers.
        collector.patience = Duration::from_secs(60);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (one, two, three) = tokio::join!(collector.ask(), collector.ask(), collector.ask());
            assert!(Arc::ptr_eq(&one, &two) && Arc::ptr_eq(&two, &three));
            assert_eq!((one.number, one.fresh().count()), (1, 2));
            assert_eq!(collector.ask().await.number, 2, "who comes later asks anew");
        });
        // A shard that has ended answers nobody; what it said stays.
        collector.gateway().stop();
        collector.patience = PATIENCE;
        let after = runtime.block_on(collector.ask());
        assert_eq!((after.silent(), after.last().count()), (vec![0, 1], 2));
    }
}
