//! Small tokenizers of each kind, made here, in the form in which they are published.

use onnx_text::{SpecialTokens, TextError, TextStream, Tokenizer};
use serde_json::{Value, json};

fn file(model: Value, pre_tokenizer: Value, normalizer: Value, decoder: Value, specials: &[(u32, &str)]) -> Vec<u8> {
    let added: Vec<Value> = specials
        .iter()
        .map(|(id, content)| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
        })
        .collect();
    let file = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
        "model": model });
    serde_json::to_vec(&file).expect("it is JSON")
}

/// Byte-level BPE as GPT-2's and SmolLM2's: all bytes but 0xf1, and a few merges.
fn byte_level() -> Vec<u8> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut letters: Vec<char> = (0..256).filter(printable).filter_map(char::from_u32).collect();
    letters.extend((0..256 - letters.len() as u32).filter_map(|index| char::from_u32(0x100 + index)));
    letters.retain(|letter| *letter != '\u{f1}');
    let mut vocabulary: serde_json::Map<String, Value> = serde_json::Map::new();
    vocabulary.insert("<|end|>".into(), json!(0));
    for letter in letters {
        let id = vocabulary.len();
        vocabulary.insert(letter.to_string(), json!(id));
    }
    let merges = ["h e", "l l", "he ll", "hell o", "\u{120} w"];
    for merge in merges {
        let id = vocabulary.len();
        vocabulary.insert(merge.replace(' ', ""), json!(id));
    }
    let model = json!({ "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": vocabulary, "merges": merges });
    let pre = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Digits", "individual_digits": true },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true }] });
    let decoder = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    file(model, pre, Value::Null, decoder, &[(0, "<|end|>")])
}

/// SentencePiece BPE with byte fallback, as Llama 2's.
fn sentence_piece() -> Vec<u8> {
    let mut vocabulary = serde_json::Map::new();
    for special in ["<unk>", "<s>", "</s>"] {
        let id = vocabulary.len();
        vocabulary.insert(special.into(), json!(id));
    }
    for byte in 0..256 {
        let id = vocabulary.len();
        vocabulary.insert(format!("<0x{byte:02X}>"), json!(id));
    }
    for piece in ["\u{2581}", "h", "i", "o", "\u{2581}h", "\u{2581}hi"] {
        let id = vocabulary.len();
        vocabulary.insert(piece.into(), json!(id));
    }
    let model = json!({ "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": vocabulary, "merges": ["\u{2581} h", "\u{2581}h i"] });
    let normalizer = json!({ "type": "Sequence", "normalizers": [
        { "type": "Prepend", "prepend": "\u{2581}" },
        { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" }] });
    let decoder = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " },
        { "type": "ByteFallback" }, { "type": "Fuse" },
        { "type": "Strip", "content": " ", "start": 1, "stop": 0 }] });
    file(model, Value::Null, normalizer, decoder, &[(0, "<unk>"), (1, "<s>"), (2, "</s>")])
}

fn read(file: &[u8]) -> Tokenizer {
    Tokenizer::from_json(file).expect("a good file")
}

fn pieces(tokenizer: &Tokenizer, prompt: &[u32], tokens: &[u32]) -> Vec<String> {
    let mut stream = TextStream::after(prompt);
    let mut pieces = Vec::new();
    for token in tokens {
        let before = stream.text().len();
        stream.push(tokenizer, *token).expect("it decodes");
        pieces.push(stream.text()[before..].to_string());
    }
    let before = stream.text().len();
    stream.finish(tokenizer).expect("it decodes");
    pieces.push(stream.text()[before..].to_string());
    pieces
}

#[test]
fn byte_level_merges_words_and_knows_special_tokens() {
    let tokenizer = read(&byte_level());
    let token = |text: &str| tokenizer.token(text).expect("it is one");
    assert_eq!(tokenizer.encode("hello w<|end|>", true).expect("text"), [token("hello"), token(" w"), 0]);
    let digits = tokenizer.encode("12", false).expect("text");
    assert_eq!(digits, [token("1"), token("2")]);
    let text = "hello w\u{f6}rld \u{1f431} \u{732b}\n";
    let tokens = tokenizer.encode(text, false).expect("text");
    assert_eq!(tokenizer.decode(&tokens).expect("tokens"), text);
    assert_eq!(tokenizer.decode(&[0, token("hello")]).expect("tokens"), "hello");
    assert_eq!(tokenizer.special_in("a <|end|> b"), Some("<|end|>"));
    assert_eq!((tokenizer.special_in("a"), tokenizer.token("no token")), (None, None));
}

#[test]
fn a_byte_that_the_vocabulary_lacks_gives_no_token() {
    let tokenizer = read(&byte_level());
    // U+50000 is f1 90 80 80.
    let tokens = tokenizer.encode("a\u{50000}", false).expect("text");
    assert_eq!(tokens.len(), 4);
    assert!(tokens.iter().all(|token| (*token as usize) < 1 + 255 + 5), "{tokens:?}");
}

#[test]
fn a_stream_never_splits_a_character() {
    let tokenizer = read(&byte_level());
    let cat = tokenizer.encode("\u{1f431}!", false).expect("text");
    assert_eq!(pieces(&tokenizer, &[], &cat), ["", "", "", "\u{1f431}", "!", ""]);
    // Cut in the middle it is U+FFFD at the end, and only there.
    let cut = pieces(&tokenizer, &[], &cat[..3]);
    assert_eq!(cut[..3], ["", "", ""]);
    assert!(cut[3].starts_with('\u{fffd}'), "{cut:?}");
    // A prompt may end within a character; then the rest of it is the text's.
    assert_eq!(pieces(&tokenizer, &cat[..2], &cat[2..]).concat(), "\u{1f431}!");
}

#[test]
fn sentence_piece_keeps_the_spaces_between_prompt_and_text() {
    let tokenizer = read(&sentence_piece());
    let tokens = tokenizer.encode("hi hi", false).expect("text");
    let hi = tokenizer.encode("hi", false).expect("text");
    assert_eq!(tokens, [hi[0], hi[0]]);
    assert_eq!(tokenizer.decode(&tokens).expect("tokens"), "hi hi");
    assert_eq!(pieces(&tokenizer, &tokens[..1], &tokens[1..]).concat(), " hi");
    assert_eq!(pieces(&tokenizer, &[1], &tokens).concat(), "hi hi");
    // What is no piece goes by its bytes.
    let bytes = tokenizer.encode("h\u{e9}", false).expect("text");
    assert_eq!(bytes[1..], [3 + 0xc3, 3 + 0xa9]);
    assert_eq!(pieces(&tokenizer, &[1], &bytes), ["h", "", "\u{e9}", ""]);
}

#[test]
fn unigram_and_word_piece_are_read() {
    let model = json!({ "type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["\u{2581}", -2.0], ["\u{2581}ab", -1.0], ["a", -3.0], ["b", -3.0]] });
    let metaspace =
        json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true });
    let unigram = read(&file(model, metaspace.clone(), Value::Null, metaspace, &[(0, "<unk>")]));
    assert_eq!(unigram.encode("ab b", false).expect("text"), [2, 1, 4]);
    assert_eq!(unigram.decode(&[2, 1, 4]).expect("tokens"), "ab b");
    let model = json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": { "[UNK]": 0, "play": 1, "##ing": 2 } });
    let normalizer = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": true });
    let decoder = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    let words = read(&file(model, json!({ "type": "BertPreTokenizer" }), normalizer, decoder, &[(0, "[UNK]")]));
    assert_eq!(words.encode("Playing xyz", false).expect("text"), [1, 2, 0]);
    assert_eq!(words.decode(&[1, 2]).expect("tokens"), "playing");
}

#[test]
fn what_is_no_tokenizer_says_so() {
    let whole = byte_level();
    for bad in [&b""[..], b"{", b"[]", b"{\"version\":\"1.0\"}", &[0xff, 0xfe], &whole[..whole.len() / 2]] {
        assert!(matches!(Tokenizer::from_json(bad), Err(TextError::File { file: "tokenizer.json", .. })));
    }
}

#[test]
fn what_ends_a_text_is_read_from_both_files() {
    let tokenizer = read(&byte_level());
    let config = br#"{"bos_token": null, "eos_token": {"content": "<|end|>"}, "chat_template": [{"name": "default", "template": "T"}]}"#;
    let read = |config: &[u8], generation: &[u8]| SpecialTokens::read(Some(&tokenizer), Some(config), Some(generation));
    let tokens = read(config, br#"{"eos_token_id": [5, 7]}"#).expect("good files");
    assert_eq!((tokens.bos.as_str(), tokens.eos.as_str()), ("", "<|end|>"));
    assert_eq!(tokens.ends.into_iter().collect::<Vec<_>>(), [0, 5, 7]);
    assert_eq!(tokens.chat_template.as_deref(), Some("T"));
    let plain = read(br#"{"chat_template": "U"}"#, br#"{"eos_token_id": 3}"#).expect("good files");
    assert_eq!((plain.ends.into_iter().collect::<Vec<_>>(), plain.chat_template.as_deref()), (vec![3], Some("U")));
    assert!(read(br#"{"eos_token": "none such"}"#, b"{}").is_err());
    assert!(read(b"{}", br#"{"eos_token_id": "x"}"#).is_err());
    assert!(read(b"{", b"{}").is_err());
}
