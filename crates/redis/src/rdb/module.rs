//! What modules write: passed over by the marks between its parts, never understood.

use std::io::Read;

use super::error::RdbError;
use super::input::Input;
use super::sum::{Hash, Hasher};
use super::value::{Kind, Value, text};

/// A value of a module's type. Its digest is that of its parts as they are: the same module writes the same again only if
/// it cares to.
pub(super) fn read<R: Read>(input: &mut Input<R>) -> Result<Value, RdbError> {
    let id = input.number()?;
    let mut hasher = Hasher::new();
    hasher.number(id);
    let digest = parts(input, hasher)?;
    Ok(Value { kind: Kind::Module, elements: 0, digest })
}

/// What a module keeps beside its values.
pub(super) fn beside<R: Read>(input: &mut Input<R>) -> Result<(), RdbError> {
    // The module, and when it wants to be asked.
    let (_id, _mark, _when) = (input.number()?, input.number()?, input.number()?);
    parts(input, Hasher::new())?;
    Ok(())
}

fn parts<R: Read>(input: &mut Input<R>, mut hasher: Hasher) -> Result<Hash, RdbError> {
    loop {
        let mark = input.number()?;
        hasher.number(mark);
        match mark {
            0 => return Ok(hasher.finish()),
            1 | 2 => hasher.number(input.number()?),
            3 => hasher.bytes(&input.array::<4>()?),
            4 => hasher.bytes(&input.array::<8>()?),
            5 => {
                text(input, &mut hasher)?;
            }
            number => {
                let (what, at) = ("a module's part of type", input.position());
                return Err(RdbError::Unknown { what, number, at });
            }
        }
    }
}
