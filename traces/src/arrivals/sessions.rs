//! Sessions: a user sends a request, reads the answer, thinks, and sends the next turn, whose prompt is the whole history
//! and something new. Sessions arrive at a rate of their own; turns follow the system's answers.

use super::gaps::{Gaps, exponential};
use super::length::Draw;
use super::renewal::Times;
use super::{Request, TOKENS, Turn, out_of_range};
use moesim_core::rng::{Stream, stream};
use moesim_core::{Diag, Picos, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many turns a session has, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Turns {
    /// The mean.
    pub mean: u32,
    /// How they vary.
    #[serde(default)]
    pub distribution: TurnsDistribution,
}

/// How the number of turns varies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TurnsDistribution {
    /// After every turn the user goes on with the same probability.
    #[default]
    Geometric,
    /// Not at all.
    Fixed,
}

impl Turns {
    fn draw(self, r: &mut Stream) -> u32 {
        match self.distribution {
            TurnsDistribution::Fixed => self.mean,
            TurnsDistribution::Geometric if self.mean == 1 => 1,
            // The whole part of an exponential is geometric.
            TurnsDistribution::Geometric => 1 + (exponential(r) / -libm::log1p(-1.0 / f64::from(self.mean))) as u32,
        }
    }
}

/// What every session is drawn from.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) turns: Turns,
    pub(super) think: Picos,
    pub(super) prompt: Draw,
    pub(super) output: Draw,
}

/// Sessions in order of arrival, each with its first request; an error is the last item.
pub struct Sessions {
    kind: Kind,
    times: Times,
    seed: u64,
    left: u64,
    id: u64,
    /// The first turn of the next session.
    request: u64,
}

impl Sessions {
    pub(super) fn new(seed: u64, rate: f64, cv: f64, sessions: u64, kind: Kind) -> Result<Self> {
        if !(1..=65_536).contains(&kind.turns.mean) {
            return Err(out_of_range("turns.mean", kind.turns.mean.to_string(), "from 1 to 65536 turns"));
        }
        if sessions == 0 {
            return Err(out_of_range("sessions", "0".into(), "at least 1"));
        }
        let times = Times::new(seed, "arrivals", Gaps::gamma_of(cv)?, rate, "sessions_per_s")?;
        Ok(Self { kind, times, seed, left: sessions, id: 0, request: 0 })
    }
    /// What the reader of a summary should know of them.
    pub fn notes(&self) -> Vec<String> {
        vec![
            "no prefix cache: every turn of a session computes its history again".to_string(),
            "all turns of a session replay one sequence of the trace".to_string(),
        ]
    }
}

impl Iterator for Sessions {
    type Item = Result<(Session, Request)>;
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let Some(arrival) = self.times.next() else {
            self.left = 0;
            return Some(Err(Diag::input(format!("session {} arrives after 213 days, the end of the clock", self.id))
                .place("sessions_per_s")
                .cure("give a higher rate or fewer sessions")));
        };
        let mut stream = stream(self.seed, "session", self.id);
        let turns = self.kind.turns.draw(&mut stream);
        let mut session =
            Session { id: self.id, first: self.request, turns, sent: 0, history: 0, kind: self.kind.clone(), stream };
        self.id += 1;
        self.request += u64::from(turns);
        let first = session.turn(arrival);
        Some(first.map(|r| (session, r)))
    }
}

/// A session that is going on. Its turns and lengths do not depend on when answers come, only its times do.
pub struct Session {
    id: u64,
    /// Number of its first request: turns are numbered session by session.
    first: u64,
    turns: u32,
    sent: u32,
    /// Tokens of all turns and answers so far.
    history: u32,
    kind: Kind,
    stream: Stream,
}

impl Session {
    /// The turn that follows an answer that was complete at `now`, after an exponential time to think; none if that was
    /// the last.
    ///
    /// # Errors
    /// A prompt beyond 16 Mi tokens.
    pub fn after(&mut self, now: Picos) -> Result<Option<Request>> {
        if self.sent == self.turns {
            return Ok(None);
        }
        let think = Picos::from_seconds(exponential(&mut self.stream) * self.kind.think.seconds());
        self.turn(now + think).map(Some)
    }

    fn turn(&mut self, arrival: Picos) -> Result<Request> {
        let prompt = self.history + self.kind.prompt.draw(&mut self.stream);
        let output = self.kind.output.draw(&mut self.stream);
        if prompt > TOKENS {
            return Err(Diag::input(format!(
                "turn {} of session {} has a prompt of {prompt} tokens",
                self.sent, self.id
            ))
            .place("turns")
            .cure("give fewer turns or shorter ones: no model takes more than 16777216 tokens"));
        }
        let turn = Turn { session: self.id, number: self.sent };
        let id = self.first + u64::from(self.sent);
        self.sent += 1;
        self.history = prompt + output;
        Ok(Request { turn: Some(turn), ..Request::new(id, arrival, prompt, output) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::failure;
    use super::*;
    use crate::{ArrivalSpec, Arrivals};
    use std::path::Path;

    const TEXT: &str = "kind = \"sessions\"\nsessions_per_s = 2.0\nsessions = 4000\nturns = { mean = 5 }\n\
                        think_time = \"10 s\"\nprompt_tokens = { mean = 100, spread = 0.5 }\noutput_tokens = { mean = 40 }";

    fn open(text: &str) -> Result<Sessions> {
        let spec: ArrivalSpec = moesim_core::config::from_toml(text, "e.toml")?;
        match spec.open(7, Path::new(""))? {
            Arrivals::Sessions(s) => Ok(s),
            other => panic!("{other:?}"),
        }
    }
    /// All turns of every session, each answered after `took`.
    fn served(text: &str, took: Picos) -> Result<Vec<Vec<Request>>> {
        open(text)?
            .map(|s| {
                let (mut session, first) = s?;
                let mut turns = vec![first];
                while let Some(next) = session.after(turns[turns.len() - 1].arrival + took)? {
                    turns.push(next);
                }
                Ok(turns)
            })
            .collect()
    }
    const SECOND: Picos = Picos(1_000_000_000_000);

    #[test]
    fn prompts_are_the_history_and_something_new() {
        let all = served(TEXT, SECOND).unwrap();
        assert_eq!(all.len(), 4000);
        let mut id = 0;
        let mut think = Vec::new();
        for (s, turns) in all.iter().enumerate() {
            for (i, r) in turns.iter().enumerate() {
                assert_eq!((r.id, r.turn), (id, Some(Turn { session: s as u64, number: i as u32 })));
                assert_eq!(r.output_tokens, 40);
                id += 1;
            }
            assert!((50..=150).contains(&turns[0].prompt_tokens));
            for w in turns.windows(2) {
                let new = w[1].prompt_tokens - w[0].prompt_tokens - w[0].output_tokens;
                assert!((50..=150).contains(&new), "{new}");
                think.push(w[1].arrival.since(w[0].arrival + SECOND).seconds());
            }
        }
        assert!(all.windows(2).all(|w| w[0][0].arrival <= w[1][0].arrival));
        // Geometric from 1: variance mean (mean - 1). Five standard errors.
        let turns = id as f64 / 4000.0;
        assert!((turns - 5.0).abs() < 5.0 * (20.0f64 / 4000.0).sqrt(), "{turns}");
        let single = all.iter().filter(|t| t.len() == 1).count() as f64 / 4000.0;
        assert!((single - 0.2).abs() < 5.0 * (0.16f64 / 4000.0).sqrt(), "{single}");
        let mean = think.iter().sum::<f64>() / think.len() as f64;
        assert!((mean - 10.0).abs() < 5.0 * 10.0 / (think.len() as f64).sqrt(), "{mean}");
        let span = all[3999][0].arrival.seconds();
        assert!((span - 2000.0).abs() < 5.0 * 0.5 * 4000.0f64.sqrt(), "{span}");
    }

    #[test]
    fn what_is_asked_does_not_depend_on_when_it_is_answered() {
        let (fast, slow) = (served(TEXT, Picos::ZERO).unwrap(), served(TEXT, Picos(SECOND.0 * 99)).unwrap());
        let what = |r: &Request| (r.id, r.prompt_tokens, r.output_tokens, r.turn);
        assert!(fast.iter().flatten().map(what).eq(slow.iter().flatten().map(what)));
        assert_ne!(fast, slow);
        let fixed = TEXT.replace("mean = 5", "mean = 3, distribution = \"fixed\"").replace("10 s", "0 s");
        let all = served(&fixed, SECOND).unwrap();
        assert!(all.iter().all(|t| t.len() == 3 && t[1].arrival == t[0].arrival + SECOND));
        // Sessions that come later change nothing in those before, and bursts change no lengths.
        let few = served(&TEXT.replace("4000", "10\ncv = 3.0"), SECOND).unwrap();
        let first = served(TEXT, SECOND).unwrap();
        assert!(few.iter().flatten().map(what).eq(first[..10].iter().flatten().map(what)));
    }

    #[test]
    fn ranges_are_checked() {
        for (from, to, words) in [
            ("= 2.0", "= nan", "sessions_per_s: NaN"),
            ("= 2.0", "= 0.0", "sessions_per_s: 0"),
            ("4000", "0", "sessions: 0"),
            ("4000", "9\ncv = -1.0", "cv: -1"),
            ("mean = 5", "mean = 0", "turns.mean: 0"),
            ("mean = 100", "mean = 0", "prompt_tokens.mean: 0"),
            ("mean = 40", "mean = 99999999", "output_tokens.mean"),
            ("4000", "5\nlimit = 3", "limit"),
        ] {
            let e = failure(served(&TEXT.replacen(from, to, 1), SECOND));
            assert!(e.contains(words), "{e}");
        }
        let long = TEXT.replace("mean = 100", "mean = 9000000").replace("0.5", "0.0");
        assert!(failure(served(&long, SECOND)).contains("turn 1 of session"));
        assert!(failure(served(&TEXT.replace("2.0", "1e-6"), SECOND)).contains("end of the clock"));
    }
}
