//! WebAssembly bodies with 128-bit SIMD.

mod block;

pub(crate) use super::cost::CHUNK_ROWS;
use super::cost::{DEPTH, VECTOR_DEPTH, VECTOR_ROWS, WHOLE_DEPTH};
use super::pack::{LANES, PANEL_COLUMNS, PANEL_VECTORS, Panel, panels};
use super::{PackedRef, portable};
use crate::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use block::{Block, DEPTHS, VECTOR_BLOCKS, VECTOR_DEPTHS, VectorBlock, blocks, whole_block};
use std::arch::wasm32::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// What sums start with where there is no bias.
static ZEROS: [f32; PANEL_COLUMNS] = [0.0; PANEL_COLUMNS];

/// B, packed or not.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    data: *const f32,
    k: usize,
    n: usize,
    /// Values from a row to the next where B is not packed.
    stride: Option<usize>,
}

impl Operand {
    pub(crate) fn packed(b: PackedRef<'_>) -> Operand {
        Operand { data: b.data.as_ptr(), k: b.k, n: b.n, stride: None }
    }

    /// The panel's values of row `row`, and how far it is from there to the next row's.
    fn panel(&self, panel: &Panel, row: usize) -> (*const f32, usize) {
        let (start, stride) = match self.stride {
            None => (panel.offset, panel.vectors * LANES),
            Some(stride) => (panel.column, stride),
        };
        (self.data.wrapping_add(start + row * stride), stride)
    }
}

/// Rows of C that are computed together. The sums grow in C itself, those of a vector that is not whole aside.
pub(crate) struct Chunk<'a> {
    b: Operand,
    epilogue: &'a Epilogue<'a>,
    /// The first row of C.
    c: *mut f32,
    c_stride: usize,
    first_row: usize,
    rows: usize,
    /// The columns of the last, partial panel.
    aside: MaybeUninit<[[f32; LANES]; CHUNK_ROWS]>,
}

impl<'a> Chunk<'a> {
    /// Rows `rows`, at most [`CHUNK_ROWS`], of the columns of C that start at `c`, its row 0. C's rows hold `b.n` values.
    pub(crate) fn new(
        b: Operand,
        epilogue: &'a Epilogue<'a>,
        rows: Range<usize>,
        c: *mut f32,
        c_stride: usize,
    ) -> Chunk<'a> {
        let (first_row, rows) = (rows.start, rows.len());
        assert!(rows <= CHUNK_ROWS);
        let c = c.wrapping_add(first_row * c_stride);
        Chunk { b, epilogue, c, c_stride, first_row, rows, aside: MaybeUninit::uninit() }
    }

    /// Adds the products with rows `k` of B to the sums of the columns of all panels in `columns`.
    ///
    /// # Safety
    /// `table` has an entry for each row of the chunk, where `k.len()` values of A can be read.
    pub(crate) unsafe fn accumulate(&mut self, table: &[*const f32], k: Range<usize>, columns: &Range<usize>) {
        debug_assert_eq!(table.len(), self.rows);
        let panels = panels(self.b.k, self.b.n);
        for panel in panels.filter(|panel| columns.start < panel.end && panel.end <= columns.end) {
            // SAFETY: handed on.
            unsafe { self.accumulate_panel(table, k.clone(), &panel) };
        }
    }

    /// [`Chunk::accumulate`] for one panel.
    unsafe fn accumulate_panel(&mut self, table: &[*const f32], k: Range<usize>, panel: &Panel) {
        let partial = panel.column + panel.vectors * LANES != panel.end || !panel.column.is_multiple_of(LANES);
        let mut bias = [0.0; LANES];
        let bias = match self.epilogue.bias {
            None => ZEROS.as_ptr(),
            Some(values) if self.b.n < LANES => {
                bias[..self.b.n].copy_from_slice(values);
                bias.as_ptr()
            }
            Some(values) => values[panel.column..].as_ptr(),
        };
        let (c, c_stride) = if partial {
            (self.aside.as_mut_ptr().cast(), LANES)
        } else {
            (self.c.wrapping_add(panel.column), self.c_stride)
        };
        let is_whole = k == (0..WHOLE_DEPTH) && self.b.k == WHOLE_DEPTH && self.epilogue.residual.is_none();
        let blocks = blocks(panel.vectors);
        let mut done = 0;
        while done < k.len() {
            let row = k.start + done;
            let (depth, function) = if is_whole {
                (WHOLE_DEPTH, whole_block(panel.vectors))
            } else {
                let (depth, index) = next_depth(&DEPTHS, k.len() - done);
                let (first, last) = (row == 0, row + depth == self.b.k && self.epilogue.residual.is_none());
                (depth, blocks[index][usize::from(first) + 2 * usize::from(last)])
            };
            let (b, b_stride) = self.b.panel(panel, row);
            let block = Block {
                rows: table.as_ptr(),
                rows_end: table.as_ptr_range().end,
                a_offset: bytes(done),
                b,
                b_stride: bytes(b_stride),
                bias,
                c,
                c_stride: bytes(c_stride),
                clamp: self.epilogue.clamp,
            };
            // SAFETY: the rows of A are the caller's word; those of B and C hold the panel's columns, the partial panel
            // being stored aside, with a row of one vector for each of at most CHUNK_ROWS rows.
            unsafe { function(&block) };
            done += depth;
        }
    }

    /// Puts the partial panel's columns where they belong, and adds the residual.
    ///
    /// # Safety
    /// All rows of B were accumulated, those of the partial panel with the same `columns`.
    pub(crate) unsafe fn finish(&mut self, columns: &Range<usize>) {
        let n = self.b.n;
        if !n.is_multiple_of(LANES) && columns.end == n {
            // The partial panel's columns that were asked for: its first ones may be another range's.
            let panel_start = n.saturating_sub(LANES);
            let first = columns.start.max(panel_start);
            let aside: *const [f32; LANES] = self.aside.as_ptr().cast();
            for row in 0..self.rows {
                // SAFETY: the partial panel was accumulated; its columns are within C's row.
                unsafe {
                    let from = aside.add(row).cast::<f32>().add(first - panel_start);
                    let to = self.c.add(row * self.c_stride + first);
                    if n - first == LANES {
                        v128_store(to.cast(), v128_load(from.cast()));
                    } else {
                        to.copy_from_nonoverlapping(from, n - first);
                    }
                }
            }
        }
        if let Some(residual) = &self.epilogue.residual {
            for row in 0..self.rows {
                // SAFETY: C's rows hold n values, and nothing else refers to them now.
                let c = unsafe { std::slice::from_raw_parts_mut(self.c.add(row * self.c_stride), n) };
                let residual = &residual.row(self.first_row + row)[columns.clone()];
                add_and_clamp(&mut c[columns.clone()], residual, self.epilogue.clamp);
            }
        }
    }
}

/// Bytes of so many values.
fn bytes(values: usize) -> usize {
    values * size_of::<f32>()
}

/// sums = clamp(sums + residual).
pub(crate) fn add_and_clamp(sums: &mut [f32], residual: &[f32], clamp: Clamp) {
    let bounds = (f32x4_splat(clamp.low), f32x4_splat(clamp.high));
    let (vectors, rest) = sums.as_chunks_mut::<LANES>();
    let (residual_vectors, residual_rest) = residual.as_chunks::<LANES>();
    for (sums, residual) in vectors.iter_mut().zip(residual_vectors) {
        // SAFETY: both are sixteen bytes.
        unsafe {
            let sum = f32x4_add(v128_load(sums.as_ptr().cast()), v128_load(residual.as_ptr().cast()));
            v128_store(sums.as_mut_ptr().cast(), f32x4_pmin(f32x4_pmax(sum, bounds.0), bounds.1));
        }
    }
    for (sum, residual) in rest.iter_mut().zip(residual_rest) {
        *sum = clamp.apply(*sum + residual);
    }
}

/// The depth of the next block when `left` rows are left, and its index: what makes `left` a multiple of the largest
/// comes first, the smallest block first, so that the last blocks, which clamp, are large.
fn next_depth(depths: &[usize], left: usize) -> (usize, usize) {
    let largest = depths[0];
    let depth = if left.is_multiple_of(largest) { largest } else { 1 << (left % largest).trailing_zeros() };
    // Depths are descending powers of two.
    (depth, (largest / depth).trailing_zeros() as usize)
}

/// See [`super::gemm`].
pub fn gemm(a: MatrixRef<'_>, b: PackedRef<'_>, epilogue: &Epilogue<'_>, rows: Range<usize>, c: &mut MatrixMut<'_>) {
    if b.k == 0 || b.n == 0 || rows.is_empty() {
        return portable::gemm(a, b, epilogue, rows, c);
    }
    if rows.len() <= VECTOR_ROWS {
        few_rows(a, b, epilogue, rows, 0..b.n, c);
    } else {
        many_rows(a, Operand::packed(b), epilogue, rows, c);
    }
}

/// See [`super::gemm_unpacked`].
pub fn gemm_unpacked(
    a: MatrixRef<'_>,
    b: MatrixRef<'_>,
    epilogue: &Epilogue<'_>,
    rows: Range<usize>,
    c: &mut MatrixMut<'_>,
) {
    if b.rows == 0 || b.columns < LANES {
        return portable::gemm_unpacked(a, b, epilogue, rows, c);
    }
    let b = Operand { data: b.data.as_ptr(), k: b.rows, n: b.columns, stride: Some(b.stride) };
    many_rows(a, b, epilogue, rows, c);
}

/// See [`super::gemv`].
pub fn gemv(x: &[f32], b: PackedRef<'_>, epilogue: &Epilogue<'_>, columns: Range<usize>, y: &mut [f32]) {
    if b.k == 0 || b.n == 0 {
        return portable::gemv(x, b, epilogue, columns, y);
    }
    few_rows(MatrixRef::new(x, 1, b.k), b, epilogue, 0..1, columns, &mut MatrixMut::new(y, 1, b.n));
}

fn many_rows(a: MatrixRef<'_>, b: Operand, epilogue: &Epilogue<'_>, rows: Range<usize>, c: &mut MatrixMut<'_>) {
    let mut table = [std::ptr::null(); CHUNK_ROWS];
    for first in rows.clone().step_by(CHUNK_ROWS) {
        let count = CHUNK_ROWS.min(rows.end - first);
        for (index, entry) in table[..count].iter_mut().enumerate() {
            *entry = a.data.as_ptr().wrapping_add((first + index) * a.stride);
        }
        let mut chunk = Chunk::new(b, epilogue, first..first + count, c.data.as_mut_ptr(), c.stride);
        let columns = 0..b.n;
        // SAFETY: the rows of A hold k values, as a MatrixRef does; all of B is accumulated.
        unsafe {
            chunk.accumulate(&table[..count], 0..b.k, &columns);
            chunk.finish(&columns);
        }
    }
}

/// At most [`VECTOR_ROWS`] rows: full panels row by row, the rest as in [`many_rows`].
fn few_rows(
    a: MatrixRef<'_>,
    b: PackedRef<'_>,
    epilogue: &Epilogue<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    c: &mut MatrixMut<'_>,
) {
    let full = columns.end / PANEL_COLUMNS * PANEL_COLUMNS;
    let mut table = [std::ptr::null(); VECTOR_ROWS];
    for (index, row) in rows.clone().enumerate() {
        let x = a.row(row);
        table[index] = x.as_ptr();
        if columns.start < full {
            full_panels(x, b, epilogue, columns.start..full, &mut c.row_mut(row)[columns.start..full]);
        }
    }
    let rest = full.max(columns.start)..columns.end;
    let mut chunk = Chunk::new(Operand::packed(b), epilogue, rows.clone(), c.data.as_mut_ptr(), c.stride);
    // SAFETY: the rows of A hold k values; all rows of B are accumulated, by the vector blocks those of full panels.
    unsafe {
        if !rest.is_empty() {
            chunk.accumulate(&table[..rows.len()], 0..b.k, &rest);
        }
        chunk.finish(&columns);
    }
}

/// The columns `columns`, which are full panels and at least one, of a row; without residual.
fn full_panels(x: &[f32], b: PackedRef<'_>, epilogue: &Epilogue<'_>, columns: Range<usize>, y: &mut [f32]) {
    assert!(x.len() == b.k && y.len() == columns.len() && !y.is_empty() && columns.end <= b.n);
    assert!(columns.start.is_multiple_of(PANEL_COLUMNS) && y.len().is_multiple_of(PANEL_COLUMNS));
    let y = y.as_mut_ptr_range();
    let mut done = 0;
    while done < b.k {
        let (depth, index) = next_depth(&VECTOR_DEPTHS, b.k - done);
        let (start, start_stride) = match epilogue.bias {
            _ if done > 0 => (y.start.cast_const(), PANEL_COLUMNS),
            Some(bias) => (bias[columns.clone()].as_ptr(), PANEL_COLUMNS),
            None => (ZEROS.as_ptr(), 0),
        };
        let block = VectorBlock {
            x: x[done..][..depth].as_ptr(),
            b: b.data[columns.start * b.k + done * PANEL_COLUMNS..].as_ptr(),
            b_stride: bytes(b.k * PANEL_COLUMNS),
            start,
            start_stride: bytes(start_stride),
            y: y.start,
            y_end: y.end,
            y_stride: bytes(PANEL_COLUMNS),
            clamp: epilogue.clamp,
        };
        let last = done + depth == b.k && epilogue.residual.is_none();
        // SAFETY: `columns` are full panels of b.k rows, one behind the other; x holds `depth` values from `done` on.
        unsafe { VECTOR_BLOCKS[index][usize::from(last)](&block) };
        done += depth;
    }
}

const _: () = assert!(PANEL_VECTORS == 8 && DEPTH == DEPTHS[0] && VECTOR_DEPTH == VECTOR_DEPTHS[0]);
