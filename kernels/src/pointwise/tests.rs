use super::*;

#[test]
fn shapes_that_do_not_go_together_are_refused() {
    let data = [0.0; 6];
    let error = Operand::broadcast(&data, &[2, 3], &[2, 4]).unwrap_err();
    assert_eq!(error, ShapeError::Dimension { axis: 1, operand: 3, output: 4 });
    assert_eq!(error.to_string(), "dimension 1 of the output is 4, of an operand 3");
    assert_eq!(Operand::full(&data, &[7]).unwrap_err(), ShapeError::Elements { needed: 7, got: 6 });
    assert_eq!(Operand::full(&data, &[1; 9]).unwrap_err(), ShapeError::Rank { rank: 9 });
    assert_eq!(Operand::broadcast(&data, &[6, 1], &[6]).unwrap_err(), ShapeError::Rank { rank: 2 });
    let far = Operand::strided(&data, &[usize::MAX, 1], &[3, 2]).unwrap_err();
    assert_eq!(far, ShapeError::Elements { needed: usize::MAX, got: 6 });
}

#[test]
fn chains_that_can_not_run_are_refused() {
    let data = [0.0; 6];
    let shape = [2, 3];
    let full = Operand::full(&data, &shape).unwrap();
    let steps = [Step::Binary(Binary::Add, Operand::in_place(&shape).unwrap())];
    assert_eq!(Chain::new(&shape, full, &steps).unwrap_err(), ShapeError::InPlace);
    let columns = Operand::strided(&data, &[1, 2], &shape).unwrap();
    assert_eq!(Chain::new(&shape, columns, &[]).unwrap_err(), ShapeError::InnerStride { stride: 2 });
    let steps = [Step::Unary(Unary::Relu); MAX_STEPS + 1];
    assert_eq!(Chain::new(&shape, full, &steps).unwrap_err(), ShapeError::Steps { steps: MAX_STEPS + 1 });
    // An operand made for another shape does not reach beyond its data.
    let error = Chain::new(&[20, 3], full, &[]).unwrap_err();
    assert_eq!(error, ShapeError::Elements { needed: 60, got: 6 });
}

#[test]
fn steps_run_fused_where_they_can() {
    let data = [1.0; 12];
    let shape = [3, 4];
    let full = Operand::full(&data, &shape).unwrap();
    let each = |steps: &[Step]| Chain::new(&shape, full, steps).unwrap().estimate_instructions(0..12);
    let scale = Step::Binary(Binary::Mul, full);
    let shift = Step::Binary(Binary::Add, full);
    let clamp = Step::Unary(Unary::Clamp { low: 0.0, high: 1.0 });
    assert!(each(&[scale, shift, clamp]) < each(&[scale]) + each(&[clamp]));
}

#[test]
#[should_panic(expected = "0..7 of 6")]
fn a_range_beyond_the_output_is_refused() {
    let shape = [6];
    let chain = Chain::new(&shape, Operand::number(1.0), &[]).unwrap();
    chain.run(0..7, &mut [0.0; 7]);
}
