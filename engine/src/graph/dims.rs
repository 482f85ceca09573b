//! Sizes that are known, and those that a request settles.

use crate::EngineError;
use tract_onnx::tract_core::internal::{Symbol, SymbolValues, TDim, ToDim, TypedModel, solve_for};

/// A dimension of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dim {
    Known(usize),
    /// An expression of symbols: its index in the [`DimTable`].
    Free(u32),
}

impl Dim {
    pub fn known(self) -> Option<usize> {
        match self {
            Dim::Known(size) => Some(size),
            Dim::Free(_) => None,
        }
    }

    pub fn is_one(self) -> bool {
        self == Dim::Known(1)
    }
}

/// The different expressions of symbols that a graph's dimensions are. A request's shapes settle each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct DimTable {
    expressions: Vec<TDim>,
    /// Whether each is the size of a dimension, and not just a number.
    is_size: Vec<bool>,
    /// A size that is known and more than this target has.
    too_large: Option<i64>,
}

/// The values of a [`DimTable`]'s expressions for one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sizes(Vec<i64>);

impl DimTable {
    pub fn dim(&mut self, dim: &TDim) -> Dim {
        if let Some(size) = dim.as_i64() {
            if size > i64::from(i32::MAX) {
                self.too_large = Some(size);
            }
            return Dim::Known(size.clamp(0, i64::from(i32::MAX)) as usize);
        }
        let index = self.index(dim);
        self.is_size[index] = true;
        Dim::Free(index as u32)
    }

    /// A number that symbols settle, which need not be a size: read it with [`Sizes::number`].
    pub fn number(&mut self, number: &TDim) -> Dim {
        Dim::Free(self.index(number) as u32)
    }

    fn index(&mut self, expression: &TDim) -> usize {
        self.expressions.iter().position(|known| known == expression).unwrap_or_else(|| {
            self.expressions.push(expression.clone());
            self.is_size.push(false);
            self.expressions.len() - 1
        })
    }

    pub fn dims(&mut self, dims: &[TDim]) -> Vec<Dim> {
        dims.iter().map(|dim| self.dim(dim)).collect()
    }

    /// The expression of a dimension.
    pub fn expression(&self, dim: Dim) -> TDim {
        match dim {
            Dim::Known(size) => size.to_dim(),
            Dim::Free(index) => self.expressions[index as usize].clone(),
        }
    }

    /// Whether the shapes of the first `inputs` inputs settle every expression; fails with the first they do not.
    pub fn check(&self, model: &TypedModel, inputs: usize) -> Result<(), EngineError> {
        if let Some(size) = self.too_large {
            let limit = i32::MAX as u64;
            return Err(EngineError::TooLarge { place: "a dimension of the graph".into(), value: size as u64, limit });
        }
        let facts = model.inputs.iter().take(inputs).filter_map(|outlet| model.outlet_fact(*outlet).ok());
        let given: Vec<TDim> = facts.flat_map(|fact| fact.shape.iter().cloned().collect::<Vec<_>>()).collect();
        let is_given = |symbol: &Symbol| given.iter().any(|dim| dim.symbols().contains(symbol));
        for expression in &self.expressions {
            if !expression.symbols().iter().all(is_given) {
                return Err(EngineError::invalid(
                    "sizes",
                    format!("{expression} depends on more than the inputs' shapes"),
                ));
            }
        }
        Ok(())
    }

    /// The size of every expression; fails with the first that the symbols do not settle.
    pub fn settle(&self, symbols: &SymbolValues) -> Result<Sizes, String> {
        let size = |(expression, is_size): (&TDim, &bool)| {
            let value = expression.eval(symbols);
            let number = value.as_i64().filter(|number| !is_size || (0..=i64::from(i32::MAX)).contains(number));
            number.ok_or_else(|| format!("the size {expression} is {value} for inputs of these shapes"))
        };
        self.expressions.iter().zip(&self.is_size).map(size).collect::<Result<_, _>>().map(Sizes)
    }
}

/// A bit for an expression, all for one beyond the bits there are, none for a known size.
pub(crate) fn bit(dim: Dim) -> u128 {
    match dim {
        Dim::Known(_) => 0,
        Dim::Free(index) => 1u128.checked_shl(index).unwrap_or(u128::MAX),
    }
}

/// A number that depends on two others: `constant + past * of_past + new * of_new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub constant: i64,
    pub of_past: i64,
    pub of_new: i64,
}

impl Line {
    pub fn constant(constant: i64) -> Line {
        Line { constant, of_past: 0, of_new: 0 }
    }

    pub fn at(self, past: i64, new: i64) -> i64 {
        self.constant + self.of_past * past + self.of_new * new
    }

    fn combine(self, factor: i64, other: Line) -> Option<Line> {
        let part = |a: i64, b: i64| b.checked_mul(factor)?.checked_add(a);
        Some(Line {
            constant: part(self.constant, other.constant)?,
            of_past: part(self.of_past, other.of_past)?,
            of_new: part(self.of_new, other.of_new)?,
        })
    }

    /// An expression, given those of its symbols.
    fn of(expression: &TDim, symbols: &[(Symbol, Line)]) -> Option<Line> {
        match expression {
            TDim::Val(number) => Some(Line::constant(*number)),
            TDim::Sym(symbol) => symbols.iter().find(|(known, _)| known == symbol).map(|(_, line)| *line),
            TDim::Add(terms) => {
                terms.iter().try_fold(Line::constant(0), |sum, term| sum.combine(1, Line::of(term, symbols)?))
            }
            TDim::MulInt(factor, term) => Line::constant(0).combine(*factor, Line::of(term, symbols)?),
            TDim::Broadcast(sizes) => {
                let mut lines = sizes.iter().map(|size| Line::of(size, symbols));
                let first = lines.next()??;
                lines.all(|line| line == Some(first) || line == Some(Line::constant(1))).then_some(first)
            }
            _ => None,
        }
    }
}

impl DimTable {
    /// Every expression as a line, for inputs whose shapes are these lines; `None` where one is not.
    pub fn lines(&self, model: &TypedModel, shapes: &[Vec<Line>]) -> Option<Vec<Line>> {
        let mut symbols: Vec<(Symbol, Line)> = Vec::new();
        let facts = || model.inputs.iter().zip(shapes).map(|(outlet, shape)| (model.outlet_fact(*outlet), shape));
        for (fact, shape) in facts() {
            for (dim, line) in fact.ok()?.shape.iter().zip(shape) {
                if let TDim::Sym(symbol) = dim
                    && !symbols.iter().any(|(known, _)| known == symbol)
                {
                    symbols.push((symbol.clone(), *line));
                }
            }
        }
        for (fact, shape) in facts() {
            if fact.ok()?.shape.iter().zip(shape).any(|(dim, line)| Line::of(dim, &symbols) != Some(*line)) {
                return None;
            }
        }
        self.expressions.iter().map(|expression| Line::of(expression, &symbols)).collect()
    }

    /// The sizes that these lines come to; false when one is none.
    pub fn settle_lines(&self, lines: &[Line], past: i64, new: i64, sizes: &mut Sizes) -> bool {
        sizes.0.clear();
        sizes.0.extend(lines.iter().map(|line| line.at(past, new)));
        let fits = |(number, is_size): (&i64, &bool)| !is_size || (0..=i64::from(i32::MAX)).contains(number);
        sizes.0.iter().zip(&self.is_size).all(fits)
    }
}

impl Sizes {
    /// The bits of the expressions that come to something else.
    pub fn differing(&self, other: &Sizes) -> u128 {
        let differs = |index: &usize| self.0.get(*index) != other.0.get(*index);
        (0..other.0.len()).filter(differs).fold(0, |bits, index| bits | bit(Dim::Free(index as u32)))
    }

    pub fn of(&self, dim: Dim) -> usize {
        match dim {
            Dim::Known(size) => size,
            Dim::Free(index) => self.0[index as usize] as usize,
        }
    }

    /// A dimension, or a number of [`DimTable::number`].
    pub fn number(&self, dim: Dim) -> i64 {
        match dim {
            Dim::Known(size) => size as i64,
            Dim::Free(index) => self.0[index as usize],
        }
    }

    pub fn numbers(&self, dims: &[Dim]) -> Vec<i64> {
        dims.iter().map(|dim| self.number(*dim)).collect()
    }

    pub fn shape(&self, dims: &[Dim]) -> Vec<usize> {
        dims.iter().map(|dim| self.of(*dim)).collect()
    }
}

/// The values of the model's symbols for inputs of these shapes; fails with the input whose shape contradicts them.
pub(crate) fn bind_symbols(model: &TypedModel, shapes: &[Vec<u64>]) -> Result<SymbolValues, String> {
    let mut symbols = SymbolValues::default();
    // Expressions of several symbols are settled once the symbols that stand alone are.
    for alone in [true, false] {
        for (outlet, shape) in model.inputs.iter().zip(shapes) {
            let fact = model.outlet_fact(*outlet).map_err(|error| format!("{error:#}"))?;
            for (dim, size) in fact.shape.iter().zip(shape) {
                let size = *size as i64;
                let dim = dim.eval(&symbols);
                match &dim {
                    TDim::Val(known) if *known == size => {}
                    TDim::Val(known) => return Err(format!("a dimension is {size}, the graph needs {known}")),
                    TDim::Sym(symbol) => symbols.set(symbol, size),
                    _ if alone => {}
                    _ => {
                        let found = dim.symbols();
                        let mut found = found.into_iter();
                        if let (Some(symbol), None) = (found.next(), found.next())
                            && let Some(value) = solve_for(&symbol, &dim, &size.to_dim()).and_then(|v| v.as_i64())
                        {
                            symbols.set(&symbol, value);
                        }
                    }
                }
            }
        }
    }
    Ok(symbols)
}
