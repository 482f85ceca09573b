//! The layout that weights are kept in.

use crate::matrix::MatrixRef;
use std::mem::MaybeUninit;

/// Values of a vector.
pub(crate) const LANES: usize = 4;
/// Vectors of a full panel.
pub(crate) const PANEL_VECTORS: usize = 8;
/// Columns of a full panel.
pub const PANEL_COLUMNS: usize = PANEL_VECTORS * LANES;

/// A panel: `vectors * 4` columns of the matrix from column `column` on, all its rows, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panel {
    /// First column.
    pub column: usize,
    /// The column after its last one.
    pub end: usize,
    /// Vectors of four columns, one of [`PANEL_SIZES`].
    pub vectors: usize,
    /// Where its values start in the packed data.
    pub offset: usize,
}

/// Vectors of the panels that there are blocks for, a full one first.
const PANEL_SIZES: [usize; 5] = [PANEL_VECTORS, 6, 4, 2, 1];

/// The panels of a matrix of `k` rows and `n` columns, in the order in which they are stored.
///
/// Panels of as many of the whole vectors that are left as [`PANEL_SIZES`] has; then, if `n` is not a multiple of 4, one
/// vector of the last four columns. Three of its columns at most are also in the panel before: they are computed twice,
/// to the same bits, and every store is of a whole vector. A matrix of fewer than four columns is one vector, filled with
/// zeros.
pub(crate) fn panels(k: usize, n: usize) -> impl Iterator<Item = Panel> {
    let whole = n / LANES * LANES;
    let mut column = 0;
    let of_whole_vectors = std::iter::from_fn(move || {
        let left = (whole - column) / LANES;
        let vectors = PANEL_SIZES.into_iter().find(|&vectors| vectors <= left)?;
        let panel = Panel { column, end: column + vectors * LANES, vectors, offset: k * column };
        column = panel.end;
        Some(panel)
    });
    let partial = (whole < n).then(|| Panel { column: n.saturating_sub(LANES), end: n, vectors: 1, offset: k * whole });
    of_whole_vectors.chain(partial)
}

/// The panels that have columns of `columns`, in the order of [`panels`]; those before are not gone through.
fn panels_of(k: usize, n: usize, columns: std::ops::Range<usize>) -> impl Iterator<Item = Panel> {
    // As many panels of 32 columns as are before the first column, but not those that the matrix ends with.
    let skipped = columns.start.min(n / PANEL_COLUMNS * PANEL_COLUMNS) / PANEL_COLUMNS * PANEL_COLUMNS;
    let left = panels(k, n - skipped).map(move |panel| Panel {
        column: panel.column + skipped,
        end: panel.end + skipped,
        offset: panel.offset + k * skipped,
        ..panel
    });
    // A last vector of what is left may begin among the columns that were skipped.
    let begin = n.saturating_sub(LANES);
    left.map(
        move |panel| if panel.end == n && !n.is_multiple_of(LANES) { Panel { column: begin, ..panel } } else { panel },
    )
    .skip_while({
        let start = columns.start;
        move |panel| panel.end <= start
    })
    .take_while(move |panel| panel.column < columns.end)
}

/// Values that a packed matrix of `k` rows and `n` columns takes: `k` times `n` rounded up to a multiple of 4.
///
/// # Panics
/// When that overflows.
pub fn packed_len(k: usize, n: usize) -> usize {
    n.checked_next_multiple_of(LANES).and_then(|columns| columns.checked_mul(k)).expect("a packed matrix overflows")
}

/// A packed matrix that is owned: weights.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedMatrix {
    k: usize,
    n: usize,
    data: Vec<f32>,
    /// Rows that are set while the matrix is filled row by row; 0 before and after.
    rows_set: usize,
}

impl PackedMatrix {
    /// A matrix of `k` rows and `n` columns of zeros, to be filled piece by piece.
    pub fn zeros(k: usize, n: usize) -> PackedMatrix {
        PackedMatrix { k, n, data: vec![0.0; packed_len(k, n)], rows_set: 0 }
    }

    /// A matrix to be filled row by row or column by column. Where rows, or columns of whole panels, come one after the
    /// other from the first on, memory is written once; else it is zeroed first.
    ///
    /// Until all columns are set it can't be read.
    pub fn to_fill(k: usize, n: usize) -> PackedMatrix {
        PackedMatrix { k, n, data: Vec::with_capacity(packed_len(k, n)), rows_set: 0 }
    }

    /// Packs a matrix given row by row (ONNX MatMul's B: `[k, n]`).
    pub fn from_rows(source: MatrixRef<'_>) -> PackedMatrix {
        let mut packed = PackedMatrix::to_fill(source.rows, source.columns);
        packed.set_rows(0, source);
        packed
    }

    /// Packs a matrix given column by column (ONNX Gemm's B with `transB`, or the weights of a pointwise convolution:
    /// `[n, k]`): row `j` of `source` is column `j` of the matrix.
    pub fn from_columns(source: MatrixRef<'_>) -> PackedMatrix {
        let mut packed = PackedMatrix::to_fill(source.columns, source.rows);
        packed.set_columns(0, source);
        packed
    }

    /// Sets the rows from `first` on.
    ///
    /// # Panics
    /// When `source` has another number of columns or too many rows.
    pub fn set_rows(&mut self, first: usize, source: MatrixRef<'_>) {
        let len = packed_len(self.k, self.n);
        // A matrix of fewer columns than a vector has has padding.
        let is_next = self.n >= LANES && self.data.is_empty() && self.data.capacity() >= len && first == self.rows_set;
        if !is_next {
            self.initialise();
            return pack_rows(&mut self.data, self.k, self.n, first, source);
        }
        // SAFETY: the vector has room for `len` values, and a place that may be uninitialised can be any memory. Nothing
        // but values is written to it.
        let places = unsafe { std::slice::from_raw_parts_mut(self.data.as_mut_ptr().cast(), len) };
        pack_rows_into(places, self.k, self.n, first, source);
        self.rows_set += source.rows;
        if self.rows_set == self.k {
            self.rows_set = 0;
            // SAFETY: all rows have been written, and with at least four columns there is no padding.
            unsafe { self.data.set_len(len) };
        }
    }

    /// Zeros what is not set yet.
    fn initialise(&mut self) {
        let len = packed_len(self.k, self.n);
        if self.rows_set > 0 {
            let rows = self.k - self.rows_set;
            self.set_rows(self.rows_set, MatrixRef::new(&vec![0.0; rows * self.n], rows, self.n));
        }
        self.data.resize(len, 0.0);
    }

    /// Sets the columns from `first` on: row `j` of `source` is column `first + j` of the matrix.
    ///
    /// # Panics
    /// When `source` has another number of rows or too many columns.
    pub fn set_columns(&mut self, first: usize, source: MatrixRef<'_>) {
        self.set_columns_blocked(first, source, 1);
    }

    /// Sets columns as [`PackedMatrix::set_columns`] does, where the values of a column are given `block` by `block` and
    /// go to the rows `offset * (k / block) + index` for value `offset` of block `index`: a filter's taps, given channel
    /// by channel, go to rows ordered by tap.
    pub(crate) fn set_columns_blocked(&mut self, first: usize, source: MatrixRef<'_>, block: usize) {
        let len = packed_len(self.k, self.n);
        let whole = whole_panels(self.k, self.n, first, first.saturating_add(source.rows));
        let whole = whole.filter(|_| self.rows_set == 0);
        match whole.filter(|whole| whole.start == self.data.len() && self.data.capacity() >= len) {
            Some(whole) => {
                // SAFETY: the vector has room for `len` values, and a place that may be uninitialised can be any memory.
                // Nothing but values is written to it, so what was initialised stays so.
                let places = unsafe { std::slice::from_raw_parts_mut(self.data.as_mut_ptr().cast(), len) };
                pack_columns_blocked(places, self.k, self.n, first, source, block);
                // SAFETY: all columns of these panels are in the source, and have just been written.
                unsafe { self.data.set_len(whole.end) };
            }
            None => {
                self.initialise();
                pack_columns_blocked(places(&mut self.data), self.k, self.n, first, source, block);
            }
        }
    }

    /// The view that kernels take.
    ///
    /// # Panics
    /// When it is to be filled and is not.
    pub fn view(&self) -> PackedRef<'_> {
        assert_eq!(self.data.len(), packed_len(self.k, self.n), "a matrix whose columns are all set");
        PackedRef { k: self.k, n: self.n, data: &self.data }
    }

    /// Rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.data.capacity() * size_of::<f32>()
    }
}

/// A packed matrix that is read.
#[derive(Clone, Copy, Debug)]
pub struct PackedRef<'a> {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) data: &'a [f32],
}

impl<'a> PackedRef<'a> {
    /// A matrix packed by [`pack_rows`] or [`pack_columns`].
    ///
    /// # Panics
    /// When `data` is shorter than [`packed_len`].
    pub fn new(data: &'a [f32], k: usize, n: usize) -> PackedRef<'a> {
        PackedRef { k, n, data: &data[..packed_len(k, n)] }
    }

    /// Rows.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Where the value of row 0 and column `column` is, and how far it is from there to the next row's.
    fn position(&self, column: usize) -> (usize, usize) {
        position(self.k, self.n, column)
    }

    /// One value.
    pub fn get(&self, row: usize, column: usize) -> f32 {
        assert!(row < self.k && column < self.n, "({row}, {column}) of ({}, {})", self.k, self.n);
        let (start, stride) = self.position(column);
        self.data[start + row * stride]
    }

    /// Reads row `row` back: what a Gather on axis 0 of a matrix packed by rows gives.
    ///
    /// # Panics
    /// When there is no such row or `output` is not as long as a row.
    pub fn read_row(&self, row: usize, output: &mut [f32]) {
        assert!(row < self.k, "row {row} of {}", self.k);
        assert_eq!(output.len(), self.n, "a row has {} values", self.n);
        for panel in panels(self.k, self.n) {
            let width = panel.vectors * LANES;
            let values = &self.data[panel.offset + row * width..][..width];
            let places = &mut output[panel.column..];
            let count = width.min(places.len());
            places[..count].copy_from_slice(&values[..count]);
        }
    }

    /// Reads column `column` back: what a Gather on axis 0 of a matrix packed by columns gives (an embedding table that
    /// is also the output layer's weights).
    ///
    /// # Panics
    /// When there is no such column or `output` is not as long as a column.
    pub fn read_column(&self, column: usize, output: &mut [f32]) {
        assert!(column < self.n, "column {column} of {}", self.n);
        assert_eq!(output.len(), self.k, "a column has {} values", self.k);
        let (start, stride) = self.position(column);
        if let Some(values) = self.data.get(start..) {
            for (place, value) in output.iter_mut().zip(values.iter().step_by(stride)) {
                *place = *value;
            }
        }
    }
}

/// Where the value of row 0 and column `column`, which is less than `n`, is in a packed `k` x `n` matrix, and how far it
/// is to the next row's.
fn position(k: usize, n: usize, column: usize) -> (usize, usize) {
    let whole = n / LANES * LANES;
    if column >= whole {
        return (k * whole + column - n.saturating_sub(LANES), LANES);
    }
    // The panels before the one of 32 columns that holds it, or would, are full.
    let full = column / PANEL_COLUMNS * PANEL_COLUMNS;
    let panel = panels(k, whole - full).find(|panel| column - full < panel.end).expect("the panels hold all columns");
    (k * full + panel.offset + column - full - panel.column, panel.vectors * LANES)
}

/// Sets rows of a packed `k` x `n` matrix in `packed` from row `first` on. Padding columns are not touched: zero `packed`
/// once before when `n` is less than 4.
///
/// # Panics
/// When `source` has other columns than `n`, too many rows, or `packed` is shorter than [`packed_len`].
pub fn pack_rows(packed: &mut [f32], k: usize, n: usize, first: usize, source: MatrixRef<'_>) {
    pack_rows_into(places(packed), k, n, first, source);
}

/// See [`pack_rows`]. Writes nothing but values.
fn pack_rows_into(packed: &mut [MaybeUninit<f32>], k: usize, n: usize, first: usize, source: MatrixRef<'_>) {
    assert_eq!(source.columns, n, "rows of {n} columns");
    assert!(first <= k && source.rows <= k - first, "rows {first} + {} of {k}", source.rows);
    let packed = &mut packed[..packed_len(k, n)];
    for panel in panels(k, n) {
        let width = panel.vectors * LANES;
        let count = width.min(n - panel.column);
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        if count == width {
            super::copy::rows(source, panel.column, panel.vectors, &mut packed[panel.offset + first * width..]);
            continue;
        }
        for row in 0..source.rows {
            let values = &source.row(row)[panel.column..][..count];
            packed[panel.offset + (first + row) * width..][..count].write_copy_of_slice(values);
        }
    }
}

/// Sets columns of a packed `k` x `n` matrix in `packed` from column `first` on: row `j` of `source` is column
/// `first + j`. Padding columns are not touched: zero `packed` once before when `n` is less than 4.
///
/// # Panics
/// When the rows of `source` have other lengths than `k`, there are too many, or `packed` is shorter than
/// [`packed_len`].
pub fn pack_columns(packed: &mut [f32], k: usize, n: usize, first: usize, source: MatrixRef<'_>) {
    pack_columns_blocked(places(packed), k, n, first, source, 1);
}

/// Values as places for values.
fn places(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: both have the same layout. Only functions that write nothing but values get it.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// Where in the packed data those panels are that have columns from `first` to `end`; `None` when they have others as
/// well, or there are none.
fn whole_panels(k: usize, n: usize, first: usize, end: usize) -> Option<std::ops::Range<usize>> {
    let mut whole: Option<std::ops::Range<usize>> = None;
    for panel in panels_of(k, n, first..end) {
        let width = panel.vectors * LANES;
        if panel.column < first || panel.end > end || panel.end - panel.column != width {
            return None;
        }
        let start = whole.map_or(panel.offset, |whole| whole.start);
        whole = Some(start..panel.offset + k * width);
    }
    whole
}

/// See [`PackedMatrix::set_columns_blocked`]. Writes nothing but values.
fn pack_columns_blocked(
    packed: &mut [MaybeUninit<f32>],
    k: usize,
    n: usize,
    first: usize,
    source: MatrixRef<'_>,
    block: usize,
) {
    assert_eq!(source.columns, k, "columns of {k} rows");
    if k == 0 {
        return;
    }
    assert!(first <= n && source.rows <= n - first, "columns {first} + {} of {n}", source.rows);
    let packed = &mut packed[..packed_len(k, n)];
    for panel in panels_of(k, n, first..first + source.rows) {
        let width = panel.vectors * LANES;
        for column in (panel.column..panel.column + width).step_by(LANES) {
            let set = column.max(first)..(column + LANES).min(first + source.rows).min(panel.end);
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            if set.len() == LANES {
                super::copy::columns(
                    source,
                    column - first,
                    block,
                    panel.vectors,
                    &mut packed[panel.offset + column - panel.column..],
                );
                continue;
            }
            for column in set.clone() {
                let values = source.row(column - first);
                let mut at = panel.offset + column - panel.column;
                for start in 0..block {
                    for value in values[start..].iter().step_by(block) {
                        packed[at].write(*value);
                        at += width;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|index| index as f32 + 1.0).collect()
    }

    #[test]
    fn what_is_packed_is_read_back() {
        for k in [0, 1, 2, 5, 33] {
            for n in [0, 1, 2, 3, 4, 5, 7, 8, 30, 31, 32, 33, 36, 63, 64, 65, 100] {
                let source = numbered(k, n);
                let source = MatrixRef::new(&source, k, n);
                let transposed: Vec<f32> = (0..n).flat_map(|j| (0..k).map(move |i| source.row(i)[j])).collect();
                let by_rows = PackedMatrix::from_rows(source);
                let by_columns = PackedMatrix::from_columns(MatrixRef::new(&transposed, n, k));
                assert_eq!(by_rows, by_columns, "{k} x {n}");
                let packed = by_rows.view();
                let mut row = vec![0.0; n];
                for i in 0..k {
                    packed.read_row(i, &mut row);
                    assert_eq!(row, source.row(i), "row {i} of {k} x {n}");
                }
                let mut column = vec![0.0; k];
                for j in 0..n {
                    packed.read_column(j, &mut column);
                    assert_eq!(column, transposed[j * k..][..k], "column {j} of {k} x {n}");
                    for (i, value) in column.iter().enumerate() {
                        assert_eq!(packed.get(i, j), *value);
                    }
                }
            }
        }
    }

    #[test]
    fn pieces_make_the_whole() {
        let (k, n) = (7, 45);
        let source = numbered(k, n);
        let whole = PackedMatrix::from_rows(MatrixRef::new(&source, k, n));
        let mut by_rows = PackedMatrix::zeros(k, n);
        by_rows.set_rows(4, MatrixRef::new(&source[4 * n..], 3, n));
        by_rows.set_rows(0, MatrixRef::new(&source, 4, n));
        assert_eq!(by_rows, whole);
        let columns: Vec<f32> = (0..n).flat_map(|j| (0..k).map(move |i| (i * n + j) as f32 + 1.0)).collect();
        for cut in [1, 31, 32, 33, 43, 44] {
            for empty in [PackedMatrix::zeros, PackedMatrix::to_fill] {
                let mut backwards = empty(k, n);
                backwards.set_columns(cut, MatrixRef::new(&columns[cut * k..], n - cut, k));
                backwards.set_columns(0, MatrixRef::new(&columns, cut, k));
                assert_eq!(backwards, whole, "cut at {cut}");
                let mut forwards = empty(k, n);
                forwards.set_columns(0, MatrixRef::new(&columns, cut, k));
                forwards.set_columns(cut, MatrixRef::new(&columns[cut * k..], n - cut, k));
                assert_eq!(forwards, whole, "cut at {cut}");
            }
        }
    }
}
