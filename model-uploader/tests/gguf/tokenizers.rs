//! What `tokenizer.json` and its like hold, by what the metadata says.

use super::file::{GgufFile, Value};
use super::tiny::{Shape, Stored, Tiny};
use model_uploader::gguf::import_from;
use serde_json::{Value as Json, json};
use std::io::Cursor;

pub fn tiny() -> GgufFile {
    let (embedding, output) = (Stored::Q8_0, None);
    let matrices = &[Stored::Q4_1];
    let shape = Shape { architecture: "llama", heads: 4, kv_heads: 2, embedding, output, matrices, has_bias: false };
    Tiny::new(&shape, 1).file
}

/// The files of the tokenizer, of its configuration and of generation.
fn files(gguf: &GgufFile) -> [Json; 3] {
    let folder = tempfile::tempdir().unwrap();
    import_from(Cursor::new(gguf.bytes()), folder.path(), u64::MAX).unwrap();
    ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
        .map(|name| serde_json::from_slice(&std::fs::read(folder.path().join(name)).unwrap()).unwrap())
}

#[test]
fn byte_level_tokenizers_are_split_as_their_name_says() {
    let mut gguf = tiny();
    let bytes = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let [tokenizer, config, generation] = files(&gguf);
    let digits = json!({"type": "Digits", "individual_digits": true});
    assert_eq!(tokenizer["pre_tokenizer"], json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]}));
    assert_eq!(tokenizer["normalizer"], Json::Null);
    assert_eq!(tokenizer["post_processor"], Json::Null);
    assert_eq!(tokenizer["decoder"]["type"], "ByteLevel");
    let model = &tokenizer["model"];
    assert_eq!(
        (&model["type"], &model["byte_fallback"], &model["ignore_merges"]),
        (&json!("BPE"), &json!(false), &json!(false))
    );
    assert_eq!(model["merges"], json!([["a", "b"], ["ab", "c"], ["Ġ", "ab"]]));
    let vocab = json!({"<|end|>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "abc": 5, "Ġ": 6, "Ġab": 7});
    assert_eq!(model["vocab"], vocab);
    let added = &tokenizer["added_tokens"];
    assert_eq!(added.as_array().map(Vec::len), Some(1));
    assert_eq!((&added[0]["content"], &added[0]["special"]), (&json!("<|end|>"), &json!(true)));
    assert_eq!((&config["eos_token"], &config["bos_token"]), (&json!("<|end|>"), &Json::Null));
    assert_eq!(config["chat_template"], "{{ messages[0].content }}");
    assert_eq!(config["model_max_length"], 512);
    assert_eq!(generation["eos_token_id"], json!([0]));

    gguf.set("tokenizer.ggml.pre", Value::Text("gpt-2".into()));
    assert_eq!(files(&gguf)[0]["pre_tokenizer"], bytes(true));

    gguf.set("tokenizer.ggml.pre", Value::Text("qwen2".into()));
    gguf.set("tokenizer.ggml.eot_token_id", Value::U32(3));
    gguf.set("tokenizer.ggml.token_type", Value::I32s(vec![3, 1, 1, 4, 1, 1, 1, 5]));
    let [tokenizer, _, generation] = files(&gguf);
    assert_eq!(tokenizer["normalizer"], json!({"type": "NFC"}));
    let split = &tokenizer["pre_tokenizer"]["pretokenizers"][0];
    assert!(split["pattern"]["Regex"].as_str().unwrap().contains(r"|\p{N}| ?["), "{split}");
    assert_eq!(tokenizer["pre_tokenizer"]["pretokenizers"][1], bytes(false));
    assert_eq!(tokenizer["added_tokens"][1]["id"], 3);
    assert_eq!(tokenizer["added_tokens"][1]["special"], false);
    assert_eq!(generation["eos_token_id"], json!([0, 3]));

    gguf.set("tokenizer.ggml.pre", Value::Text("llama-bpe".into()));
    gguf.set("tokenizer.ggml.bos_token_id", Value::U32(1));
    let [tokenizer, config, _] = files(&gguf);
    let split = &tokenizer["pre_tokenizer"]["pretokenizers"][0];
    assert!(split["pattern"]["Regex"].as_str().unwrap().contains(r"|\p{N}{1,3}| ?["), "{split}");
    assert_eq!(tokenizer["model"]["ignore_merges"], true);
    let single = json!([{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]);
    assert_eq!(tokenizer["post_processor"]["single"], single);
    assert_eq!(tokenizer["post_processor"]["special_tokens"], json!({"a": {"id": "a", "ids": [1], "tokens": ["a"]}}));
    assert_eq!(config["add_bos_token"], true);
}

#[test]
fn sentencepiece_merges_go_by_the_score_of_what_they_make() {
    let mut gguf = tiny();
    gguf.set("tokenizer.ggml.model", Value::Text("llama".into()));
    gguf.remove("tokenizer.ggml.pre");
    gguf.remove("tokenizer.ggml.merges");
    let tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "\u{2581}", "a", "b", "ab", "\u{2581}a", "\u{2581}ab", "<s", ">"];
    gguf.set("tokenizer.ggml.tokens", Value::Texts(tokens.map(String::from).into()));
    gguf.set("tokenizer.ggml.token_type", Value::I32s(vec![2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1]));
    let scores = [0.0, 0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -3.0, -2.0, -4.0, -5.0, -6.0];
    gguf.set("tokenizer.ggml.scores", Value::F32s(scores.into()));
    gguf.set("tokenizer.ggml.bos_token_id", Value::U32(1));
    gguf.set("tokenizer.ggml.eos_token_id", Value::U32(2));
    gguf.set("tokenizer.ggml.unknown_token_id", Value::U32(0));
    let [tokenizer, config, _] = files(&gguf);
    let model = &tokenizer["model"];
    // Of those that make the same, the one with the longer left part is first; a control token is not made.
    let space = "\u{2581}";
    let merges = json!([[space, "a"], ["a", "b"], ["\u{2581}a", "b"], [space, "ab"]]);
    assert_eq!(model["merges"], merges);
    assert_eq!(
        (&model["unk_token"], &model["byte_fallback"], &model["fuse_unk"]),
        (&json!("<unk>"), &json!(true), &json!(true))
    );
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": space});
    let normalizers = json!([{"type": "Prepend", "prepend": space}, replace]);
    assert_eq!(tokenizer["normalizer"], json!({"type": "Sequence", "normalizers": normalizers}));
    let kinds: Vec<&Json> =
        tokenizer["decoder"]["decoders"].as_array().unwrap().iter().map(|part| &part["type"]).collect();
    assert_eq!(kinds, ["Replace", "ByteFallback", "Fuse", "Strip"]);
    assert_eq!(tokenizer["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
    assert_eq!((&config["bos_token"], &config["add_bos_token"]), (&json!("<s>"), &json!(true)));

    gguf.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    gguf.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    let [tokenizer, ..] = files(&gguf);
    assert_eq!(tokenizer["normalizer"]["normalizers"], json!([replace]));
    assert_eq!(tokenizer["decoder"]["decoders"].as_array().map(Vec::len), Some(3));
    assert_eq!(tokenizer["post_processor"], Json::Null);
}
