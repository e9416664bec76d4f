//! The leading right singular vectors of a sparse matrix, the same bits whenever they are computed.
//!
//! In: rows of weights. Out: orthonormal columns with their singular values, the largest first; signs fixed by the largest
//! component. Subspace iteration on the smaller side from fixed start vectors; memory is that side times the rank.

use nalgebra::{DMatrix, SymmetricEigen};

use crate::ProbeError;
use crate::number::number;
use crate::stress::narrow;

/// Columns beyond the rank that make the last ones converge.
const EXTRA_COLUMNS: usize = 16;
/// Rounds of the iteration; each separates the columns further.
const ROUNDS: usize = 12;
/// Singular values below this share of the first are rounding: they are roots of numbers that rounding leaves at 1e-16.
const NOISE: f64 = 1e-6;

/// A sparse matrix by rows; every column number is below `columns`.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) rows: Vec<Vec<(usize, f64)>>,
    pub(super) columns: usize,
}

/// Right singular vectors, component by component: `vectors[column * rank + at]`.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) values: Vec<f64>,
    pub(super) vectors: Vec<f32>,
}

type Columns = Vec<Vec<f64>>;

impl Sparse {
    fn times(&self, right: &[f64]) -> Vec<f64> {
        let dot = |row: &Vec<(usize, f64)>| {
            row.iter().map(|(column, weight)| weight * right.get(*column).copied().unwrap_or_default()).sum()
        };
        self.rows.iter().map(dot).collect()
    }

    fn transposed_times(&self, left: &[f64]) -> Vec<f64> {
        let mut product = vec![0.0; self.columns];
        for (row, factor) in self.rows.iter().zip(left) {
            for (column, weight) in row {
                if let Some(sum) = product.get_mut(*column) {
                    *sum += weight * factor;
                }
            }
        }
        product
    }

    /// The leading `rank` right singular vectors; fewer when the matrix has fewer.
    pub(super) fn leading(&self, rank: usize) -> Result<Leading, ProbeError> {
        let by_rows = self.rows.len() <= self.columns;
        let side = self.rows.len().min(self.columns);
        let mut basis = start(side, (rank + EXTRA_COLUMNS).min(side));
        for _round in 0..ROUNDS {
            orthonormalise(&mut basis);
            for column in &mut basis {
                *column = if by_rows {
                    self.times(&self.transposed_times(column))
                } else {
                    self.transposed_times(&self.times(column))
                };
            }
        }
        orthonormalise(&mut basis);
        let image: Columns = basis
            .iter()
            .map(|column| if by_rows { self.transposed_times(column) } else { self.times(column) })
            .collect();
        let (values, turns) = turned(&image, rank)?;
        // On the row side the image holds the vectors times their values, on the column side the basis holds them.
        let source = if by_rows { &image } else { &basis };
        let mut vectors: Columns = Vec::new();
        for (turn, value) in turns.iter().zip(&values) {
            let mut vector = combined(source, turn);
            if by_rows {
                for component in &mut vector {
                    *component /= value;
                }
            }
            fix_sign(&mut vector);
            vectors.push(vector);
        }
        let at = |column: usize, vector: &Vec<f64>| narrow(vector.get(column).copied().unwrap_or_default());
        let flat = (0..self.columns).flat_map(|column| vectors.iter().map(move |vector| at(column, vector)));
        Ok(Leading { vectors: flat.collect(), values })
    }
}

/// Fixed start vectors, from a generator whose state is part of the format. Numbers of 53 bits: among signs alone, a few
/// short columns may well depend on each other, and a direction would be lost.
fn start(len: usize, count: usize) -> Columns {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        number(state >> 11) / 4_503_599_627_370_496.0 - 1.0
    };
    (0..count).map(|_| (0..len).map(|_| draw()).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Gram-Schmidt, twice over, which is enough for rounding to vanish. A column that adds nothing becomes zero.
fn orthonormalise(columns: &mut Columns) {
    for at in 0..columns.len() {
        let (before, rest) = columns.split_at_mut(at);
        let Some(column) = rest.first_mut() else { continue };
        let length = dot(column, column).sqrt();
        for _pass in 0..2 {
            for other in before.iter() {
                let along = dot(column, other);
                column.iter_mut().zip(other).for_each(|(value, part)| *value -= along * part);
            }
        }
        let left = dot(column, column).sqrt();
        let scale = if left > length * 1e-12 && left > 0.0 { 1.0 / left } else { 0.0 };
        for value in column.iter_mut() {
            *value *= scale;
        }
    }
}

/// Singular values of the image and how its columns combine to the singular vectors.
fn turned(image: &Columns, rank: usize) -> Result<(Vec<f64>, Columns), ProbeError> {
    let count = image.len();
    let columns: Vec<&[f64]> = image.iter().map(Vec::as_slice).collect();
    let gram = DMatrix::from_fn(count, count, |row, column| {
        columns.get(row).zip(columns.get(column)).map_or(0.0, |(a, b)| dot(a, b))
    });
    if !gram.iter().all(|value| value.is_finite()) {
        return Err(ProbeError::NotFinite { what: "a weight of the corpus".to_owned() });
    }
    let Some(eigen) = SymmetricEigen::try_new(gram, f64::EPSILON, 10_000) else {
        return Err(ProbeError::invalid("the corpus", "its singular vectors do not converge"));
    };
    let mut order: Vec<usize> = (0..count).collect();
    let value = |at: usize| eigen.eigenvalues.get(at).copied().unwrap_or_default().max(0.0).sqrt();
    order.sort_by(|a, b| value(*b).total_cmp(&value(*a)).then(a.cmp(b)));
    let first = order.first().map_or(0.0, |at| value(*at));
    let kept: Vec<usize> = order.into_iter().take(rank).filter(|at| value(*at) > first * NOISE).collect();
    let values = kept.iter().map(|at| value(*at)).collect();
    let turns = kept.iter().map(|at| eigen.eigenvectors.column(*at).iter().copied().collect());
    Ok((values, turns.collect()))
}

fn combined(columns: &Columns, weights: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; columns.first().map_or(0, Vec::len)];
    for (column, weight) in columns.iter().zip(weights) {
        sum.iter_mut().zip(column).for_each(|(total, value)| *total += weight * value);
    }
    sum
}

fn fix_sign(vector: &mut [f64]) {
    let mut largest = 0.0f64;
    for value in vector.iter() {
        if value.abs() > largest.abs() {
            largest = *value;
        }
    }
    if largest < 0.0 {
        for value in vector.iter_mut() {
            *value = -*value;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sparse(rows: &[Vec<f64>]) -> Sparse {
        let row =
            |row: &Vec<f64>| row.iter().copied().enumerate().filter(|(_, weight)| *weight != 0.0).collect();
        Sparse { columns: rows[0].len(), rows: rows.iter().map(row).collect() }
    }

    fn dense(rows: &[Vec<f64>]) -> DMatrix<f64> {
        DMatrix::from_fn(rows.len(), rows[0].len(), |row, column| rows[row][column])
    }

    proptest! {
        #[test]
        fn the_leading_part_is_that_of_the_whole_decomposition(
            rows in (2usize..9, 2usize..9).prop_flat_map(|(rows, columns)| {
                prop::collection::vec(prop::collection::vec(prop_oneof![Just(0.0), 0.1f64..3.0], columns), rows)
            }),
            rank in 1usize..5,
        ) {
            prop_assume!(rows.iter().flatten().any(|weight| *weight != 0.0));
            let found = sparse(&rows).leading(rank).unwrap();
            let again = sparse(&rows).leading(rank).unwrap();
            prop_assert_eq!(&found.vectors, &again.vectors);
            let mut whole: Vec<f64> = dense(&rows).singular_values().iter().copied().collect();
            whole.sort_by(|a, b| b.total_cmp(a));
            prop_assert!(found.values.len() <= rank);
            for (value, expected) in found.values.iter().zip(&whole) {
                prop_assert!((value - expected).abs() < 1e-6 * whole[0], "{:?} {:?}", found.values, whole);
            }
            for a in 0..found.values.len() {
                for b in 0..found.values.len() {
                    let columns = 0..rows[0].len();
                    let product: f64 = columns.map(|at| f64::from(found.vectors[at * found.values.len() + a]) * f64::from(found.vectors[at * found.values.len() + b])).sum();
                    prop_assert!((product - f64::from(u8::from(a == b))).abs() < 1e-3, "{a} {b} {product}");
                }
            }
        }
    }

    #[test]
    fn signs_are_fixed_by_the_largest_component() {
        let found = sparse(&[vec![-3.0, 1.0], vec![-2.0, 0.5]]).leading(1).unwrap();
        assert!(found.vectors[0] > 0.9);
    }

    #[test]
    fn a_matrix_of_one_direction_has_rank_one() {
        let found = sparse(&[vec![1.0, 2.0, 0.0], vec![2.0, 4.0, 0.0]]).leading(3).unwrap();
        assert_eq!(found.values.len(), 1);
    }
}
