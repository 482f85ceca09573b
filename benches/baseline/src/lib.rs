//! Plain tract in a canister, as its documentation says to use it: parse, fix the inputs' shapes, optimise, run.

use candid::CandidType;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use std::cell::RefCell;
use std::io::Cursor;
use std::sync::Arc;
use tract_onnx::prelude::*;

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// There is no entropy in a canister; nothing here asks for any.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(_dest: *mut u8, _len: usize) -> Result<(), getrandom::Error> {
    Err(getrandom::Error::UNSUPPORTED)
}

thread_local! {
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static PLAN: RefCell<Option<Arc<TypedRunnableModel>>> = const { RefCell::new(None) };
}

/// An input of the model: elements little-endian, of ONNX's type of that name.
#[derive(CandidType, Deserialize)]
struct Input {
    name: String,
    element_type: String,
    shape: Vec<u64>,
    data: ByteBuf,
}

impl Input {
    fn datum_type(&self) -> DatumType {
        match &*self.element_type {
            "float32" => f32::datum_type(),
            "float16" => f16::datum_type(),
            "int32" => i32::datum_type(),
            "int64" => i64::datum_type(),
            other => ic_cdk::trap(format!("element type {other}")),
        }
    }

    fn shape(&self) -> Vec<usize> {
        self.shape.iter().map(|size| *size as usize).collect()
    }

    fn tensor(&self) -> TValue {
        // SAFETY: the types above are plain numbers, and tract compares the number of bytes with the shape.
        let tensor = unsafe { Tensor::from_raw_dt(self.datum_type(), &self.shape(), &self.data) };
        or_trap(tensor).into_tvalue()
    }
}

fn or_trap<T>(result: TractResult<T>) -> T {
    result.unwrap_or_else(|error| ic_cdk::trap(format!("{error:#}")))
}

#[ic_cdk::init]
fn init() {
    // SAFETY: once, before anything that the constructors register is looked up.
    unsafe { __wasm_call_ctors() }
}

/// Appends to the file.
#[ic_cdk::update]
fn put(bytes: ByteBuf) {
    FILE.with_borrow_mut(|file| file.extend_from_slice(&bytes));
}

/// Makes the model ready for inputs of these types and shapes, and drops the file.
#[ic_cdk::update]
fn load(inputs: Vec<Input>) {
    let file = FILE.take();
    let mut model = or_trap(tract_onnx::onnx().model_for_read(&mut Cursor::new(&file)));
    drop(file);
    for input in &inputs {
        let index = position(&model, &input.name);
        or_trap(model.set_input_fact(index, InferenceFact::dt_shape(input.datum_type(), input.shape())));
    }
    let plan = or_trap(model.into_optimized().and_then(|model| model.into_runnable()));
    PLAN.set(Some(plan));
}

fn position(model: &InferenceModel, name: &str) -> usize {
    let found = model.inputs.iter().position(|outlet| model.node(outlet.node).name == name);
    found.unwrap_or_else(|| ic_cdk::trap(format!("no input {name}")))
}

/// Runs the model on inputs in the file's order and returns the first output's bytes.
#[ic_cdk::update]
fn run(inputs: Vec<Input>) -> ByteBuf {
    let plan = PLAN.with_borrow(|plan| plan.clone()).unwrap_or_else(|| ic_cdk::trap("load it first"));
    let outputs = or_trap(plan.run(inputs.iter().map(Input::tensor).collect()));
    ByteBuf::from(outputs[0].as_bytes())
}
