//! Finds numbers that JSON cannot hold: `serde_json` writes NaN and infinities as `null`, without a word.

use std::fmt::{self, Display, Write};

use serde::{
    Serialize, Serializer,
    ser::{
        Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

/// Fails on the first number that is not finite, and says where it is: `` `pairs[3].d` is NaN ``.
pub(super) fn check(value: &impl Serialize) -> Result<(), Unwritable> {
    value.serialize(&mut Walk::default())
}

/// Walks a value; writes nothing.
#[derive(Default)]
struct Walk {
    /// Where the walk is.
    path: String,
}

/// Where the walk stopped, and why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unwritable(String);

impl Error for Unwritable {
    fn custom<T: Display>(what: T) -> Unwritable {
        Unwritable(what.to_string())
    }
}

impl Walk {
    fn step_into<T: Serialize + ?Sized>(&mut self, step: fmt::Arguments, value: &T) -> Result<(), Unwritable> {
        let length = self.path.len();
        self.path.write_fmt(step).map_err(Unwritable::custom)?;
        value.serialize(&mut *self)?;
        self.path.truncate(length);
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Unwritable> {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.step_into(format_args!("{dot}{name}"), value)
    }
}

/// The elements of a list, or the entries of a map, one after the other.
struct Parts<'a> {
    walk: &'a mut Walk,
    index: usize,
    key: String,
}

impl<'a> Parts<'a> {
    fn new(walk: &'a mut Walk) -> Parts<'a> {
        Parts { walk, index: 0, key: String::new() }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        let index = self.index;
        self.index += 1;
        self.walk.step_into(format_args!("[{index}]"), value)
    }
}

macro_rules! holds_no_float {
    ($($method:ident($($argument:ty),*)),* $(,)?) => {
        $(fn $method(self, $(_: $argument),*) -> Result<(), Unwritable> {
            Ok(())
        })*
    };
}

macro_rules! begins_parts {
    ($($method:ident($($argument:ty),*) as $parts:ident),* $(,)?) => {
        $(
            type $parts = Parts<'a>;
            fn $method(self, $(_: $argument),*) -> Result<Parts<'a>, Unwritable> {
                Ok(Parts::new(self))
            }
        )*
    };
}

impl<'a> Serializer for &'a mut Walk {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_f64(self, value: f64) -> Result<(), Unwritable> {
        if value.is_finite() { Ok(()) } else { Err(Unwritable(format!("`{}` is {value}", self.path))) }
    }

    fn serialize_f32(self, value: f32) -> Result<(), Unwritable> {
        self.serialize_f64(value.into())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unwritable> {
        self.field(variant, value)
    }

    holds_no_float! {
        serialize_bool(bool), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]),
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_i128(i128),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_u128(u128),
        serialize_none(), serialize_unit(), serialize_unit_struct(&'static str),
        serialize_unit_variant(&'static str, u32, &'static str),
    }

    begins_parts! {
        serialize_seq(Option<usize>) as SerializeSeq,
        serialize_tuple(usize) as SerializeTuple,
        serialize_tuple_struct(&'static str, usize) as SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) as SerializeTupleVariant,
        serialize_map(Option<usize>) as SerializeMap,
        serialize_struct(&'static str, usize) as SerializeStruct,
        serialize_struct_variant(&'static str, u32, &'static str, usize) as SerializeStructVariant,
    }
}

macro_rules! has_elements {
    ($($parts:ident::$method:ident),*) => {
        $(impl $parts for Parts<'_> {
            type Ok = ();
            type Error = Unwritable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
                self.element(value)
            }

            fn end(self) -> Result<(), Unwritable> {
                Ok(())
            }
        })*
    };
}

macro_rules! has_fields {
    ($($parts:ident),*) => {
        $(impl $parts for Parts<'_> {
            type Ok = ();
            type Error = Unwritable;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unwritable> {
                self.walk.field(name, value)
            }

            fn end(self) -> Result<(), Unwritable> {
                Ok(())
            }
        })*
    };
}

has_elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
has_fields!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unwritable> {
        let key = serde_json::to_value(key).map_err(Unwritable::custom)?;
        self.key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        let key = std::mem::take(&mut self.key);
        self.walk.field(&key, value)
    }

    fn end(self) -> Result<(), Unwritable> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    enum Answer {
        Faster(f64),
        Between(f64, f64),
        Guard { name: &'static str, excess: f32 },
        Undecided,
    }

    #[derive(Serialize)]
    struct Newtype(f64);

    #[derive(Serialize)]
    struct Body {
        pairs: Vec<(u8, Option<f64>)>,
        guards: BTreeMap<u32, Newtype>,
        answers: [Answer; 4],
        empty: (),
    }

    fn body(numbers: [f64; 6]) -> Body {
        let [d, guard, faster, low, high, excess] = numbers;
        Body {
            pairs: vec![(1, None), (2, Some(d))],
            guards: BTreeMap::from([(7, Newtype(1.0)), (9, Newtype(guard))]),
            answers: [
                Answer::Faster(faster),
                Answer::Between(low, high),
                Answer::Guard { name: "w2", excess: excess as f32 },
                Answer::Undecided,
            ],
            empty: (),
        }
    }

    #[test]
    fn every_number_is_looked_at_and_named() {
        assert_eq!(check(&body([f64::MIN, f64::MAX, -0.0, f64::MIN_POSITIVE, 5e-324, 0.0])), Ok(()));
        let places =
            ["pairs[1][1]", "guards.9", "answers[0].Faster", "answers[1][0]", "answers[1][1]", "answers[2].excess"];
        for (index, place) in places.into_iter().enumerate() {
            for (bad, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
                let mut numbers = [1.0; 6];
                numbers[index] = bad;
                assert_eq!(check(&body(numbers)), Err(Unwritable(format!("`{place}` is {name}"))));
            }
        }
    }

    #[test]
    fn the_first_is_named_and_other_errors_pass_through() {
        assert_eq!(check(&body([1.0, f64::NAN, 1.0, f64::NAN, 1.0, 1.0])), Err(Unwritable("`guards.9` is NaN".into())));
        assert_eq!(check(&[[0.0], [f64::NAN]]), Err(Unwritable("`[1][0]` is NaN".into())));
        let unprintable =
            std::path::PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(vec![0xff]));
        assert!(check(&unprintable).unwrap_err().to_string().contains("UTF-8"));
    }
}
