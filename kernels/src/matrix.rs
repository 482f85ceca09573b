//! Views of row-major matrices, and what is done to a value before it is stored.

use std::ops::Range;

/// A row-major matrix that is read: row `i` is `data[i * stride..][..columns]`.
///
/// The stride is in values and may be smaller than the number of columns (rows that overlap, as the frames of a signal
/// do) or far larger (a slice of a wider matrix).
#[derive(Clone, Copy, Debug)]
pub struct MatrixRef<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
}

impl<'a> MatrixRef<'a> {
    /// Rows that follow one another.
    ///
    /// # Panics
    /// When `data` is shorter than the matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> MatrixRef<'a> {
        MatrixRef::with_stride(data, rows, columns, columns)
    }

    /// Rows that start `stride` values apart.
    ///
    /// # Panics
    /// When `data` is shorter than the matrix.
    pub fn with_stride(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> MatrixRef<'a> {
        assert_holds(data.len(), rows, columns, stride);
        MatrixRef { data, rows, columns, stride }
    }

    /// The columns in a range.
    pub(crate) fn columns_of(&self, columns: Range<usize>) -> MatrixRef<'a> {
        let data = self.data.get(columns.start..).unwrap_or_default();
        MatrixRef::with_stride(data, self.rows, columns.len(), self.stride)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values from the start of a row to the start of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The values of one row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // A matrix without columns may have rows that start behind its data.
        if self.columns == 0 { &[] } else { &self.data[row * self.stride..][..self.columns] }
    }
}

/// A row-major matrix that is written: row `i` is `data[i * stride..][..columns]`, and the rows do not overlap.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Rows that follow one another.
    ///
    /// # Panics
    /// When `data` is shorter than the matrix.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> MatrixMut<'a> {
        MatrixMut::with_stride(data, rows, columns, columns)
    }

    /// Rows that start `stride` values apart.
    ///
    /// # Panics
    /// When `data` is shorter than the matrix, or the rows overlap.
    pub fn with_stride(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> MatrixMut<'a> {
        assert_holds(data.len(), rows, columns, stride);
        assert!(stride >= columns || rows <= 1, "rows of {columns} values that are {stride} apart overlap");
        MatrixMut { data, rows, columns, stride }
    }

    /// The values of one row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        if self.columns == 0 { &mut [] } else { &mut self.data[row * self.stride..][..self.columns] }
    }
}

fn assert_holds(length: usize, rows: usize, columns: usize, stride: usize) {
    if rows > 0 && columns > 0 {
        let needed = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(columns));
        assert!(
            needed.is_some_and(|needed| needed <= length),
            "{length} values do not hold {rows} rows of {columns} that start {stride} apart"
        );
    }
}

/// The bounds a value is clipped to before it is stored: `[0, inf]` is a ReLU, `[0, 6]` a ReLU6.
///
/// A NaN stays a NaN and -0 stays -0 when the bound is 0: `x < low` is false of both. With `low > high` every value but
/// NaN becomes `high`, as in ONNX Clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    pub low: f32,
    pub high: f32,
}

impl Clamp {
    /// Leaves every value as it is.
    pub const NONE: Clamp = Clamp { low: f32::NEG_INFINITY, high: f32::INFINITY };
    /// max(x, 0).
    pub const RELU: Clamp = Clamp { low: 0.0, high: f32::INFINITY };
    /// min(max(x, 0), 6).
    pub const RELU6: Clamp = Clamp { low: 0.0, high: 6.0 };

    /// The value within the bounds.
    #[inline(always)]
    pub fn apply(self, value: f32) -> f32 {
        let value = if value < self.low { self.low } else { value };
        if self.high < value { self.high } else { value }
    }
}

/// What a product is started with and what happens to it before it is stored:
/// `clamp((bias + sum of products in order) + residual)`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// One value per output column (channel), which the sum starts with. Without it the sum starts with +0.
    pub bias: Option<&'a [f32]>,
    /// A matrix of the output's shape that is added to the sum.
    pub residual: Option<MatrixRef<'a>>,
    pub clamp: Clamp,
}

impl<'a> Epilogue<'a> {
    /// The sum as it is.
    pub const NONE: Epilogue<'static> = Epilogue { bias: None, residual: None, clamp: Clamp::NONE };

    /// What of it concerns a range of the columns.
    pub(crate) fn columns(&self, columns: Range<usize>) -> Epilogue<'a> {
        Epilogue {
            bias: self.bias.map(|bias| &bias[columns.clone()]),
            residual: self.residual.map(|residual| residual.columns_of(columns)),
            clamp: self.clamp,
        }
    }

    pub(crate) fn assert_fits(&self, rows: usize, columns: usize) {
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), columns, "a bias has a value per output column");
        }
        if let Some(residual) = &self.residual {
            assert_eq!((residual.rows, residual.columns), (rows, columns), "a residual has the output's shape");
        }
    }

    /// What a sum of column `column` starts with.
    #[inline(always)]
    pub(crate) fn start(&self, column: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[column])
    }

    /// What is stored for a sum.
    #[inline(always)]
    pub(crate) fn finish(&self, row: usize, column: usize, sum: f32) -> f32 {
        let sum = match &self.residual {
            Some(residual) => sum + residual.data[row * residual.stride + column],
            None => sum,
        };
        self.clamp.apply(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamp_keeps_what_its_contract_says() {
        assert!(Clamp::RELU.apply(f32::NAN).is_nan());
        assert_eq!(Clamp::RELU.apply(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(Clamp::RELU6.apply(7.0), 6.0);
        assert_eq!(Clamp::RELU6.apply(-7.0), 0.0);
        assert_eq!(Clamp { low: 3.0, high: 1.0 }.apply(2.0), 1.0);
        for value in [f32::NEG_INFINITY, -0.0, 0.0, 1e-45, f32::INFINITY] {
            assert_eq!(Clamp::NONE.apply(value).to_bits(), value.to_bits());
        }
    }

    #[test]
    #[should_panic(expected = "7 values do not hold 2 rows of 3 that start 5 apart")]
    fn a_matrix_longer_than_its_data_is_refused() {
        MatrixRef::with_stride(&[0.0; 7], 2, 3, 5);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_rows_can_not_be_written() {
        MatrixMut::with_stride(&mut [0.0; 9], 2, 3, 2);
    }

    #[test]
    fn rows_without_columns_are_empty() {
        assert!(MatrixRef::with_stride(&[], 3, 0, 100).row(2).is_empty());
    }
}
