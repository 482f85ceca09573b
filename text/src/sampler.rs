//! From logits to the next token.
//!
//! In this order, each step on what the one before has left:
//!
//! 1. `logit_bias` is added.
//! 2. `repetition_penalty` divides the logit of each token of prompt and text if it is above 0, else multiplies it.
//! 3. `frequency_penalty` times how often a token is in the generated text is subtracted, and `presence_penalty` once if it
//!    is there at all.
//! 4. Temperature 0: the token of the highest logit. Otherwise logits are divided by the temperature.
//! 5. `top_k` keeps the highest logits.
//! 6. `top_p` keeps the most probable tokens, as few as have that much probability together.
//! 7. `min_p` keeps tokens at least that probable relative to the most probable.
//! 8. One of those left is drawn by its probability.
//!
//! Ties go to the lower token. A logit that is not a number counts as minus infinity. Probabilities are f32 by the kernels'
//! `exp`, summed in f64 in the order of tokens, and the draw walks them in that order. Each draw takes 64 bits of ChaCha8's
//! key stream under the seed, at twice the number of draws before it, counted in words: so the state is that number, and
//! how a generation was split can't matter.

use crate::TextError;
use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use onnx_kernels::math;
use onnx_kernels::reduce::{self, Axes, Extreme};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Entries of a logit bias.
pub const LOGIT_BIAS_MAX: usize = 1_024;
/// How far below the best a logit is when `top_p` first looks at it, and by what this grows: e^-10 is 0.005 %.
const TOP_P_DEPTH: f32 = 10.0;

/// How to choose tokens. The default is greedy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is all.
    pub top_k: u32,
    /// 1 is all.
    pub top_p: f32,
    /// 0 is all.
    pub min_p: f32,
    /// 1 is none.
    pub repetition_penalty: f32,
    /// 0 is none.
    pub frequency_penalty: f32,
    /// 0 is none.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Whether the seed is of no use.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 || self.top_k == 1
    }

    /// Fails with the first value out of its range.
    pub fn check(&self) -> Result<(), TextError> {
        let range = |place, value: f32, allowed: bool, reason| match allowed {
            true => Ok(()),
            false => Err(TextError::Range { place, value: value.to_string(), reason }),
        };
        let within = |value: f32, low: f32, high: f32| (low..=high).contains(&value);
        range("temperature", self.temperature, within(self.temperature, 0.0, 100.0), "0 to 100")?;
        let top_p = self.top_p;
        range("top_p", top_p, within(top_p, 0.0, 1.0) && top_p > 0.0, "above 0, at most 1")?;
        range("min_p", self.min_p, within(self.min_p, 0.0, 1.0), "0 to 1")?;
        let penalty = self.repetition_penalty;
        range("repetition_penalty", penalty, within(penalty, 0.0, 100.0) && penalty > 0.0, "above 0, at most 100")?;
        let (frequency, presence) = (self.frequency_penalty, self.presence_penalty);
        range("frequency_penalty", frequency, within(frequency, -100.0, 100.0), "-100 to 100")?;
        range("presence_penalty", presence, within(presence, -100.0, 100.0), "-100 to 100")?;
        if self.logit_bias.len() > LOGIT_BIAS_MAX {
            let value = format!("{} entries", self.logit_bias.len());
            return Err(TextError::Range { place: "logit_bias", value, reason: "at most 1024 entries" });
        }
        self.logit_bias.iter().try_for_each(|(_, bias)| range("logit_bias", *bias, bias.is_finite(), "a finite number"))
    }
}

/// What a sampler knows beside the tokens: all of it, with them, continues a generation anywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    /// Tokens drawn so far.
    pub draws: u64,
}

/// Chooses tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: SamplerState,
    /// Tokens of prompt and text, each with how often it was generated.
    seen: BTreeMap<u32, u32>,
    scores: Vec<f32>,
}

impl Sampler {
    /// A sampler that goes on after `prompt` and the `generated` tokens.
    pub fn new(sampling: Sampling, state: SamplerState, prompt: &[u32], generated: &[u32]) -> Sampler {
        let mut seen = BTreeMap::new();
        if sampling.repetition_penalty != 1.0 {
            seen.extend(prompt.iter().map(|token| (*token, 0)));
        }
        let mut sampler = Sampler { sampling, state, seen, scores: Vec::new() };
        generated.iter().for_each(|token| sampler.note(*token));
        sampler
    }

    pub fn state(&self) -> SamplerState {
        self.state
    }

    fn note(&mut self, token: u32) {
        let Sampling { repetition_penalty, frequency_penalty, presence_penalty, .. } = self.sampling;
        if repetition_penalty != 1.0 || frequency_penalty != 0.0 || presence_penalty != 0.0 {
            *self.seen.entry(token).or_default() += 1;
        }
    }

    /// The next token by its logits, one for each of the vocabulary; `None` for none.
    pub fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        if self.sampling.is_greedy() && self.sampling.logit_bias.is_empty() && self.seen.is_empty() {
            let (found, is_finite) = highest(logits)?;
            // What is not finite is for the steps below to make finite.
            if is_finite {
                let token = u32::try_from(found).ok()?;
                self.note(token);
                return Some(token);
            }
        }
        let mut scores = std::mem::take(&mut self.scores);
        scores.clear();
        let number = |logit: &f32| match *logit {
            logit if logit.is_nan() => f32::NEG_INFINITY,
            logit if logit > f32::MAX => f32::MAX,
            logit => logit,
        };
        scores.extend(logits.iter().map(number));
        self.adjust(&mut scores);
        let token = match self.sampling.is_greedy() {
            true => best(&scores),
            false => self.draw(&mut scores),
        };
        self.scores = scores;
        let token = u32::try_from(token?).ok()?;
        self.note(token);
        Some(token)
    }

    /// Biases and penalties.
    fn adjust(&self, scores: &mut [f32]) {
        let sampling = &self.sampling;
        for (token, bias) in &sampling.logit_bias {
            if let Some(score) = scores.get_mut(*token as usize) {
                *score += bias;
            }
        }
        for (token, count) in &self.seen {
            let Some(score) = scores.get_mut(*token as usize) else { continue };
            if sampling.repetition_penalty != 1.0 {
                let penalty = sampling.repetition_penalty;
                *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
            }
            if *count > 0 {
                *score -= sampling.frequency_penalty * *count as f32 + sampling.presence_penalty;
            }
        }
    }

    /// Draws by the probabilities of what the filters leave.
    fn draw(&mut self, scores: &mut [f32]) -> Option<usize> {
        let sampling = &self.sampling;
        scores.iter_mut().for_each(|score| *score /= sampling.temperature);
        let highest = scores[best(scores)?];
        let exclude = |score: &mut f32| *score = f32::NEG_INFINITY;
        let top_k = sampling.top_k as usize;
        if top_k > 0 && top_k < scores.len() {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.select_nth_unstable_by(top_k, |a, b| by_rank(scores, *a, *b));
            order[top_k..].iter().for_each(|token| exclude(&mut scores[*token]));
        }
        if sampling.top_p < 1.0 {
            top_p(scores, highest, sampling.top_p);
        }
        if sampling.min_p > 0.0 {
            let too_rare = |score: f32| math::exp(score - highest) < sampling.min_p;
            scores.iter_mut().filter(|score| too_rare(**score)).for_each(exclude);
        }
        // From here on weights instead of logits.
        scores.iter_mut().for_each(|score| *score = weight(*score, highest));
        let total: f64 = scores.iter().map(|weight| f64::from(*weight)).sum();
        let mut left = self.next_fraction() * total;
        let mut last = None;
        for (token, weight) in scores.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            left -= f64::from(*weight);
            last = Some(token);
            if left < 0.0 {
                break;
            }
        }
        last
    }

    /// A number from 0 up to but not including 1.
    fn next_fraction(&mut self) -> f64 {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.sampling.seed.to_le_bytes());
        let mut stream = ChaCha8Rng::from_seed(seed);
        stream.set_word_pos(u128::from(self.state.draws) * 2);
        self.state.draws += 1;
        (stream.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// e^(score - highest); 0 for what is excluded.
fn weight(score: f32, highest: f32) -> f32 {
    if score == f32::NEG_INFINITY { 0.0 } else { math::exp(score - highest) }
}

/// The index of the highest logit, the lowest of equals, and whether that is a finite number. `None` without logits.
fn highest(logits: &[f32]) -> Option<(usize, bool)> {
    if logits.is_empty() {
        return None;
    }
    let mut index = [0];
    let axes = Axes { outer: 1, reduced: logits.len(), inner: 1 };
    reduce::arg(Extreme::Max, logits, axes, false, 0..1, &mut index);
    let index = usize::try_from(index[0]).ok()?;
    Some((index, logits[index].is_finite()))
}

/// The index of the highest score, the lowest of equals. `None` without any above minus infinity.
fn best(scores: &[f32]) -> Option<usize> {
    let mut best = None;
    let mut highest = f32::NEG_INFINITY;
    for (index, score) in scores.iter().enumerate() {
        if *score > highest {
            (best, highest) = (Some(index), *score);
        }
    }
    best
}

/// Higher scores first, equal ones by index.
fn by_rank(scores: &[f32], a: usize, b: usize) -> Ordering {
    scores[b].total_cmp(&scores[a]).then(a.cmp(&b))
}

/// Excludes all but the most probable scores that have `share` of the probability together.
fn top_p(scores: &mut [f32], highest: f32, share: f32) {
    let total: f64 = scores.iter().map(|score| f64::from(weight(*score, highest))).sum();
    let wanted = total * f64::from(share);
    let mut depth = TOP_P_DEPTH;
    loop {
        // Sorting all of a vocabulary would cost more than the probabilities: those far below the best come in only when
        // the others don't suffice.
        let floor = highest - depth;
        let mut order: Vec<usize> = (0..scores.len()).filter(|index| scores[*index] >= floor).collect();
        let is_all = order.len() == scores.len() || floor == f32::NEG_INFINITY;
        order.sort_unstable_by(|a, b| by_rank(scores, *a, *b));
        let mut sum = 0.0;
        for (rank, index) in order.iter().enumerate() {
            sum += f64::from(weight(scores[*index], highest));
            if sum >= wanted {
                let kept: std::collections::BTreeSet<usize> = order[..=rank].iter().copied().collect();
                let excluded = scores.iter_mut().enumerate().filter(|(index, _)| !kept.contains(index));
                excluded.for_each(|(_, score)| *score = f32::NEG_INFINITY);
                return;
            }
        }
        if is_all {
            return;
        }
        depth *= 2.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::LN_2;

    fn sampler(change: impl FnOnce(&mut Sampling)) -> Sampler {
        let mut sampling = Sampling { temperature: 1.0, seed: 7, ..Sampling::default() };
        change(&mut sampling);
        sampling.check().expect("in range");
        Sampler::new(sampling, SamplerState::default(), &[], &[])
    }

    /// How often each of four tokens is drawn.
    fn counts(sampler: &mut Sampler, logits: &[f32; 4]) -> [u32; 4] {
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            counts[sampler.choose(logits).expect("there is one") as usize] += 1;
        }
        counts
    }

    /// ln of 1/2, 1/4, 1/8, 1/8.
    const HALVES: [f32; 4] = [-LN_2, -2.0 * LN_2, -3.0 * LN_2, -3.0 * LN_2];

    #[test]
    fn greedy_takes_the_lowest_of_equals_and_no_nan() {
        let mut greedy = Sampler::new(Sampling::default(), SamplerState::default(), &[], &[]);
        assert_eq!(greedy.choose(&[0.0, f32::NAN, 3.0, 3.0]), Some(2));
        assert_eq!(greedy.choose(&[f32::INFINITY, f32::INFINITY]), Some(0));
        assert_eq!(greedy.choose(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(greedy.choose(&[]), None);
        assert_eq!(greedy.state().draws, 0);
        assert_eq!(sampler(|s| s.top_k = 1).choose(&[1.0, 2.0, 2.0]), Some(1));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut all = sampler(|_| {});
        let got = counts(&mut all, &HALVES);
        for (count, expected) in got.iter().zip([2_000, 1_000, 500, 500]) {
            // Four standard deviations.
            assert!(count.abs_diff(expected) < 130, "{got:?}");
        }
        assert_eq!(all.state().draws, 4_000);
        let cold = counts(&mut sampler(|s| s.temperature = 0.1), &HALVES);
        assert!(cold[0] > 3_950, "{cold:?}");
    }

    #[test]
    fn filters_keep_what_they_say() {
        let kept = |change: fn(&mut Sampling)| counts(&mut sampler(change), &HALVES).map(|count| count > 0);
        assert_eq!(kept(|s| s.top_k = 3), [true, true, true, false], "of equals the lower");
        assert_eq!(kept(|s| s.top_k = 9), [true; 4]);
        assert_eq!(kept(|s| s.top_p = 0.5), [true, false, false, false]);
        assert_eq!(kept(|s| s.top_p = 0.8), [true, true, true, false]);
        assert_eq!(kept(|s| s.top_p = 0.000_1), [true, false, false, false]);
        assert_eq!(kept(|s| s.min_p = 0.4), [true, true, false, false]);
        assert_eq!(kept(|s| s.min_p = 1.0), [true, false, false, false]);
        // Of the two that top_k leaves the first has two thirds.
        assert_eq!(kept(|s| (s.top_k, s.top_p) = (2, 0.6)), [true, false, false, false]);
    }

    #[test]
    fn top_p_reaches_far_below_the_best() {
        // One of 0.3, and 700 that are 22 below it: the share of these is small, but not nothing.
        let mut scores = vec![0.0; 701];
        scores[1..].fill(-12.0);
        let total = 1.0 + 700.0 * f64::from(math::exp(-12.0));
        let share = ((1.0 + 350.5 * f64::from(math::exp(-12.0))) / total) as f32;
        top_p(&mut scores, 0.0, share);
        let kept = scores.iter().filter(|score| score.is_finite()).count();
        assert!((340..362).contains(&kept), "{kept}");
        assert!(scores[..kept].iter().all(|score| score.is_finite()), "of equals the lower");
    }

    #[test]
    fn penalties_and_biases_change_what_is_best() {
        let choose = |change: fn(&mut Sampling), logits: &[f32]| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            Sampler::new(sampling, SamplerState::default(), &[0, 0], &[1, 1]).choose(logits)
        };
        assert_eq!(choose(|_| {}, &[3.0, 2.5, 2.0]), Some(0));
        assert_eq!(choose(|s| s.repetition_penalty = 2.0, &[3.0, 2.5, 2.0]), Some(2), "prompt and text");
        assert_eq!(choose(|s| s.repetition_penalty = 2.0, &[-1.0, -1.1, -1.5]), Some(2), "below 0 it multiplies");
        assert_eq!(choose(|s| s.presence_penalty = 0.6, &[2.0, 2.5, 1.8]), Some(0), "the text only, and once");
        assert_eq!(choose(|s| s.frequency_penalty = 0.3, &[1.8, 2.5, 2.0]), Some(2), "as often as it is there");
        assert_eq!(choose(|s| s.logit_bias = vec![(2, 1.5), (9, 5.0)], &[3.0, 2.5, 2.0]), Some(2));
    }

    #[test]
    fn a_generation_that_is_cut_draws_the_same() {
        let logits = |step: u32| [step as f32 * 0.1, 1.0, 0.5, 0.3];
        let sampling = Sampling { temperature: 0.8, repetition_penalty: 1.1, seed: 3, ..Sampling::default() };
        let mut whole = Sampler::new(sampling.clone(), SamplerState::default(), &[2], &[]);
        let expected: Vec<u32> = (0..20).filter_map(|step| whole.choose(&logits(step))).collect();
        let mut got: Vec<u32> = Vec::new();
        let mut state = SamplerState::default();
        for step in 0..20 {
            let mut sampler = Sampler::new(sampling.clone(), state, &[2], &got);
            got.extend(sampler.choose(&logits(step)));
            state = sampler.state();
        }
        assert_eq!(got, expected);
        assert!(got.iter().any(|token| *token != got[0]), "{got:?}");
        let mut other = Sampler::new(Sampling { seed: 4, ..sampling }, SamplerState::default(), &[2], &[]);
        assert_ne!((0..20).filter_map(|step| other.choose(&logits(step))).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let place = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            match sampling.check() {
                Err(TextError::Range { place, .. }) => place,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(place(|s| s.temperature = -0.1), "temperature");
        assert_eq!(place(|s| s.temperature = f32::NAN), "temperature");
        assert_eq!(place(|s| s.top_p = 0.0), "top_p");
        assert_eq!(place(|s| s.min_p = 1.1), "min_p");
        assert_eq!(place(|s| s.repetition_penalty = 0.0), "repetition_penalty");
        assert_eq!(place(|s| s.frequency_penalty = f32::INFINITY), "frequency_penalty");
        assert_eq!(place(|s| s.presence_penalty = -101.0), "presence_penalty");
        assert_eq!(place(|s| s.logit_bias = vec![(0, f32::NAN)]), "logit_bias");
        assert_eq!(place(|s| s.logit_bias = vec![(0, 0.0); LOGIT_BIAS_MAX + 1]), "logit_bias");
    }
}
