//! The committed manifest holds: what is listed as passing passes.

use std::process::Command;

#[test]
fn the_cases_of_the_standard_pass_as_the_manifest_says() -> std::io::Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_onnx-conformance")).output()?;
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
    println!("{printed}");
    Ok(())
}
