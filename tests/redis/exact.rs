//! The prelude's whole numbers against i128: exact on both sides of 2^53, up to the largest balance.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tollgate::money::{MAX_AMOUNT, MAX_BALANCE};

use crate::harness::redis;

const PRELUDE: &str = include_str!("../../lua/prelude/exact.lua");
/// Reads pairs of decimals, does everything the prelude can with each, and writes decimals.
const SCRIPT: &str = r"
local function parse(text)
  local number = tonumber(text)
  return number < EXACT and number > -EXACT and number or text
end
local function write(value)
  return type(value) == 'number' and string.format('%.0f', value) or value
end
local answers = {}
for i = 1, #ARGV, 2 do
  local a, b = parse(ARGV[i]), parse(ARGV[i + 1])
  answers[#answers + 1] = {
    write(add(a, b)), write(subtract(a, b)), write(subtract(0, a)), tostring(less(a, b)),
  }
end
return answers
";
const PAIRS: usize = 500;
const ROUNDS: usize = 20;
const END: i64 = 1 << 53;

#[test]
fn whole_numbers_are_exact_up_to_the_largest_balance() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..ROUNDS {
        let pairs: Vec<_> = (0..PAIRS)
            .map(|_| (value(&mut random), value(&mut random)))
            .collect();
        compare(&pairs);
    }
}

#[test]
fn whole_numbers_are_exact_at_every_boundary() {
    let edges = [0, 1, 1_000_000_000, MAX_AMOUNT, END, 2 * END, MAX_BALANCE];
    let near = |edge: i64| (-2..=2).map(move |by| edge + by);
    let values: Vec<i64> = edges
        .into_iter()
        .flat_map(near)
        .flat_map(|value| [value, -value])
        .collect();
    for a in &values {
        let pairs: Vec<_> = values.iter().map(|b| (*a, *b)).collect();
        compare(&pairs);
    }
}

/// Of every size there is, often close to where a sum leaves what doubles hold exactly.
fn value(random: &mut StdRng) -> i64 {
    let size = random.random_range(0..63);
    let any = random.random::<i64>() >> size;
    match random.random_range(0..4) {
        0 => END - random.random_range(-3..=3),
        1 => -END + random.random_range(-3..=3),
        _ => any.clamp(-MAX_BALANCE, MAX_BALANCE),
    }
}

fn compare(pairs: &[(i64, i64)]) {
    let script = format!("#!lua\n{PRELUDE}\n{SCRIPT}");
    let numbers = pairs
        .iter()
        .flat_map(|(a, b)| [a.to_string(), b.to_string()]);
    let numbers: Vec<_> = numbers.collect();
    let mut words = vec!["EVAL", &script, "0"];
    words.extend(numbers.iter().map(String::as_str));
    let answers: Vec<Vec<String>> = redis::server().command(&words);
    for ((a, b), answer) in pairs.iter().zip(answers) {
        let (wide_a, wide_b) = (i128::from(*a), i128::from(*b));
        let right = [
            (wide_a + wide_b).to_string(),
            (wide_a - wide_b).to_string(),
            (-wide_a).to_string(),
            (a < b).to_string(),
        ];
        assert_eq!(answer, right, "a + b, a - b, -a, a < b of {a} and {b}");
    }
}
