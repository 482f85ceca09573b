//! A causal language model that is fed token by token, block by block, in pieces of a budget.

mod common;

use common::decoder::*;
use common::*;
use onnx_engine::{BLOCK_TOKENS_MAX, Decoder, DecoderSpec, EngineError, Meter, Step};
use tract_onnx::pb::GraphProto;

/// More tokens than a block takes.
fn text() -> Vec<u32> {
    (0..BLOCK_TOKENS_MAX as u32 + 13).map(|place| (place * place + 5 * place + 3) % VOCABULARY as u32).collect()
}

fn decoder() -> Decoder {
    Decoder::new(load(files(causal_graph())).unwrap()).unwrap()
}

/// Runs what is queued; how many pauses that had.
fn run(decoder: &mut Decoder, meter: &dyn Meter, limit: u64) -> usize {
    let mut pauses = 0;
    let mut last = (0, 0);
    while let Step::Paused { done, total } = decoder.step(meter, limit).unwrap() {
        assert!(done < total && done >= last.0, "{done} of {total} after {last:?}");
        assert!(decoder.logits().is_empty());
        last = (done, total);
        pauses += 1;
    }
    pauses
}

#[test]
fn logits_follow_the_definition() {
    let mut decoder = decoder();
    assert_eq!((decoder.vocabulary_size(), decoder.len()), (VOCABULARY, 0));
    assert_eq!(decoder.spec().cache_bytes_per_token, 2 * WIDTH as u64 * 4);
    assert!(decoder.logits().is_empty());
    let text = text();
    for count in [1, 2, 5, 64, 65, text.len()] {
        decoder.feed(&text[decoder.len()..count]).unwrap();
        run(&mut decoder, &Free, u64::MAX);
        assert_eq!((decoder.tokens(), decoder.pending()), (&text[..count], 0));
        assert_eq!(decoder.cache_bytes(), count as u64 * decoder.spec().cache_bytes_per_token);
        let expected = causal_logits(&text[..count]);
        for (got, expected) in decoder.logits().iter().zip(&expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-5, "after {count}: {got}, not {expected}");
        }
    }
}

#[test]
fn cuts_change_no_bit() {
    let text = text();
    let plan = load(files(causal_graph())).unwrap();
    let is_native = plan.is_native();
    // Where operators of tract's take part the order of their sums follows the sizes, and only the values agree.
    let same = |a: &Decoder, b: &Decoder| {
        let pairs = || a.logits().iter().zip(b.logits());
        assert_eq!((a.logits().len(), b.logits().len()), (VOCABULARY, VOCABULARY));
        match is_native {
            true => pairs().all(|(a, b)| a.to_bits() == b.to_bits()),
            false => pairs().all(|(a, b)| (a - b).abs() < 1e-5),
        }
    };
    let decoder = || Decoder::new(plan.clone()).unwrap();
    let mut whole = decoder();
    whole.feed(&text).unwrap();
    assert_eq!(run(&mut whole, &Free, u64::MAX), 0);
    for cuts in [vec![1; text.len()], vec![3, 60, 14], vec![64, 13], vec![70, 7], vec![76, 1]] {
        // And with a pause wherever one can be.
        let mut cut = decoder();
        let mut rest = &text[..];
        for count in cuts {
            cut.feed(&rest[..count]).unwrap();
            rest = &rest[count..];
            assert!(run(&mut cut, &CountingMeter::new(1), 0) > 0);
        }
        assert!(same(&cut, &whole));
    }
    // Fed while a block is under way.
    let mut meanwhile = decoder();
    meanwhile.feed(&text[..20]).unwrap();
    assert!(matches!(meanwhile.step(&CountingMeter::new(1), 0), Ok(Step::Paused { done: 0, total: 20 })));
    meanwhile.feed(&text[20..]).unwrap();
    run(&mut meanwhile, &Free, u64::MAX);
    assert!(same(&meanwhile, &whole));
}

#[test]
fn what_is_truncated_leaves_no_trace() {
    let text = text();
    let mut decoder = decoder();
    decoder.feed(&[7, 7, 7, 7, 7]).unwrap();
    run(&mut decoder, &Free, u64::MAX);
    for kept in [3, 0] {
        decoder.feed(&[9; 70]).unwrap();
        decoder.step(&CountingMeter::new(1), 0).unwrap();
        decoder.truncate(kept).unwrap();
        assert_eq!((decoder.len(), decoder.pending(), decoder.logits().len()), (kept, 0, 0));
        decoder.feed(&text[..5]).unwrap();
        run(&mut decoder, &Free, u64::MAX);
        let all = [&[7, 7, 7][..kept], &text[..5]].concat();
        assert_eq!(decoder.tokens(), all);
        let expected = causal_logits(&all);
        assert!(decoder.logits().iter().zip(&expected).all(|(got, e)| (f64::from(*got) - e).abs() < 1e-5));
    }
    // More than there are: nothing is forgotten.
    let logits = decoder.logits().to_vec();
    decoder.truncate(6).unwrap();
    assert_eq!((decoder.len(), decoder.logits()), (5, &logits[..]));
}

#[test]
fn what_can_t_be_fed_is_refused_and_changes_nothing() {
    let mut decoder = decoder().with_context_length(POSITIONS);
    let limit = VOCABULARY as u64 - 1;
    let error = EngineError::TooLarge { place: "a token's identifier".into(), value: limit + 1, limit };
    assert_eq!(decoder.feed(&[1, VOCABULARY as u32]), Err(error));
    decoder.feed(&[1]).unwrap();
    let (place, value, limit) = ("tokens in the context".to_string(), POSITIONS as u64 + 1, POSITIONS as u64);
    assert_eq!(decoder.feed(&[1; POSITIONS]), Err(EngineError::TooLarge { place, value, limit }));
    assert_eq!((decoder.len(), decoder.pending()), (0, 1));
    decoder.feed(&[1; POSITIONS - 1]).unwrap();
    run(&mut decoder, &Free, u64::MAX);
    assert_eq!(decoder.len(), decoder.context_length());
}

#[test]
fn an_error_leaves_the_tokens_before_the_block() {
    let mut limited = decoder();
    limited.feed(&[3, 1]).unwrap();
    run(&mut limited, &Free, u64::MAX);
    let mut limited = limited.with_node_limit(1);
    limited.feed(&[2]).unwrap();
    assert!(matches!(limited.step(&Free, u64::MAX), Err(EngineError::NodeTooExpensive { .. })));
    assert_eq!((limited.tokens(), limited.pending()), (&[3, 1][..], 0));
    let mut free = limited.with_node_limit(u64::MAX);
    free.feed(&[2]).unwrap();
    run(&mut free, &Free, u64::MAX);
    let expected = causal_logits(&[3, 1, 2]);
    assert!(free.logits().iter().zip(&expected).all(|(got, e)| (f64::from(*got) - e).abs() < 1e-5));
}

#[test]
fn a_model_of_another_kind_is_told_what_it_lacks() {
    let reason = |change: &dyn Fn(&mut GraphProto)| {
        let mut graph = causal_graph();
        change(&mut graph);
        match Decoder::new(load(files(graph)).unwrap()) {
            Err(EngineError::Invalid { reason, .. }) => reason,
            other => panic!("{:?}", other.map(|_| ())),
        }
    };
    let rename = |graph: &mut GraphProto, from: &str, to: &str| {
        let names = graph.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output));
        let ends = graph.input.iter_mut().chain(&mut graph.output).map(|value| &mut value.name);
        names.chain(ends).filter(|name| *name == from).for_each(|name| *name = to.into());
    };
    let missing = reason(&|graph| rename(graph, "present.0.value", "values"));
    assert_eq!(missing, "there is no output present.0.value for input \"past_key_values.0.value\"");
    assert_eq!(reason(&|graph| rename(graph, "logits", "outcome")), "there is no output \"logits\"");
    assert!(reason(&|graph| rename(graph, "input_ids", "ids")).contains("input \"ids\" is none of input_ids"));
    let plan = load(files(cnn_graph(Size::Fixed(1)))).unwrap();
    assert!(DecoderSpec::of(&plan).unwrap_err().to_string().contains("input \"image\" is none of"));
}
