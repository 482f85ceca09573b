//! `TfIdfVectorizer` of numbers.

use super::array::{Array, Result, elements};
use super::call::Call;
use crate::ElementType;

pub(super) fn tf_idf_vectorizer(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let pool = call.ints("pool_int64s").ok_or("it counts words, not numbers")?;
    let required = |name: &str| call.ints(name).ok_or_else(|| format!("{name} is missing"));
    let (starts, indexes) = (required("ngram_counts")?, required("ngram_indexes")?);
    let length = |name: &str| usize::try_from(call.int(name, 0)).ok().filter(|length| *length <= 1 << 16);
    let (Some(least), Some(most), Some(skips)) =
        (length("min_gram_length"), length("max_gram_length"), length("max_skip_count"))
    else {
        return Err("a length is out of range".into());
    };
    let columns = match indexes.iter().max() {
        Some(last) => usize::try_from(last.saturating_add(1)).map_err(|_| "an index is negative")?,
        None => 0,
    };
    let (shape, row_length) = match x.shape.as_slice() {
        [] => (vec![columns], 1),
        [length] => (vec![columns], *length),
        [rows, length] => (vec![*rows, columns], *length),
        shape => return Err(format!("shape {shape:?}")),
    };
    // The n-grams of the pool: numbers, and the column in which they are counted.
    let mut grams: Vec<(&[i64], usize)> = Vec::new();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(pool.len() as i64);
        let (start, end) = (usize::try_from(*start).unwrap_or(usize::MAX), usize::try_from(end).unwrap_or(0));
        let part = pool.get(start..end).ok_or("ngram_counts is not in order")?;
        for gram in part.chunks_exact(index + 1) {
            let column = indexes.get(grams.len()).and_then(|column| usize::try_from(*column).ok());
            grams.push((gram, column.ok_or("an n-gram has no column")?));
        }
    }
    let weights = call.floats("weights");
    let mode = call.text("mode", "TF");
    let mut counts = vec![0.0; elements(&shape)?];
    let numbers = x.i64s();
    for (row, counts) in numbers.chunks(row_length.max(1)).zip(counts.chunks_mut(columns.max(1))) {
        for (gram, column) in grams.iter().filter(|(gram, _)| (least..=most).contains(&gram.len())) {
            // Single numbers are counted once, however many may be skipped.
            for step in 1..=if gram.len() == 1 { 1 } else { skips + 1 } {
                let span = (gram.len() - 1) * step;
                let is_here =
                    |start: &usize| gram.iter().enumerate().all(|(at, number)| row[start + at * step] == *number);
                counts[*column] += (0..row.len().saturating_sub(span)).filter(is_here).count() as f64;
            }
        }
        // Weights are those of the n-grams, by their place in the pool.
        for (index, (_, column)) in grams.iter().enumerate() {
            let weight = weights.as_ref().and_then(|weights| weights.get(index)).copied().unwrap_or(1.0);
            match mode {
                "IDF" => counts[*column] = if counts[*column] > 0.0 { weight } else { 0.0 },
                "TFIDF" => counts[*column] *= weight,
                _ => {}
            }
        }
    }
    Ok(vec![Array::floats(ElementType::Float32, shape, &counts)?])
}
