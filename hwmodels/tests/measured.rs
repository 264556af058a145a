//! Times that were measured on a real machine (`hwmodels/measured`): do the forms describe them?

use flate2::read::GzDecoder;
use moesim_hwmodels::Hardware;
use moesim_hwmodels::calibrate::data::MeasurementTable;
use moesim_hwmodels::calibrate::device;
use moesim_hwmodels::calibrate::measured::{Measured, Source};
use moesim_hwmodels::calibrate::profile::{FormName, Kernel, Op};
use moesim_hwmodels::calibrate::schema::{self, Context};
use std::io::Read;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("measured")
}

fn read(table: &Path) -> Vec<Box<dyn Measured>> {
    let hardware = Hardware::load(folder().join("xeon-avx512-2-threads.toml").to_str().unwrap()).unwrap();
    let (peaks, links) = (|_: &str, p: &str| device::peaks(&hardware.device, p), |_: &str| device::links(&hardware));
    let context = Context { device: None, peaks: &peaks, links: &links, served: None };
    schema::read("measured", &[MeasurementTable::read(table, &[]).unwrap()], &context).unwrap()
}

/// On rows that the fit has seen within a tenth in the mean, and on shapes that it has not (experts in BF16; `calibrate
/// fit` does all).
#[test]
fn the_form_of_processors_describes_a_processor() {
    let measured = read(&folder().join("xeon-avx512-2-threads.csv.gz"));
    let streamed: Vec<_> = measured.iter().filter(|m| m.form() == FormName::Streamed).collect();
    // Experts and products in three precisions.
    assert_eq!(streamed.len(), 6);
    for m in streamed {
        let cross = m.op() == Op::Experts && m.names()[2] == "bfloat16";
        let kernel = m.fit(&Source { files: &[], source: None, cross });
        let seen = m.compare(&kernel).unwrap().unwrap().errors(|_| true).unwrap();
        assert!(seen.mean < 0.1 && seen.median < 0.08, "{:?} {:?}: {seen:?}", m.op(), m.names());
        // Blocked products reach the peak, which is that of such a product.
        let share = kernel.constants["e_g"].value;
        assert!((0.8..=1.2).contains(&share), "{share}");
        if cross {
            let unseen = kernel.left_out().unwrap();
            assert!(unseen.mean < 0.1 && unseen.rows == m.rows(), "{unseen:?}");
        }
    }
}

/// Another kernel's times of the same work stand beside the reference kernel's form, with the mean of tokens for every
/// expert: nearly the same where loads are balanced, within a quarter where they are skewed.
#[test]
fn other_kernels_are_compared_with_it() {
    let own = folder().join("xeon-avx512-2-threads.csv.gz");
    let (mut text, dir) = (String::new(), tempfile::tempdir().unwrap());
    GzDecoder::new(std::fs::File::open(&own).unwrap()).read_to_string(&mut text).unwrap();
    let path = dir.path().join("other.csv");
    std::fs::write(&path, text.replace("moesim_cpu", "theirs")).unwrap();
    let (own, others) = (read(&own), read(&path));
    for m in own.iter().filter(|m| m.form() == FormName::Streamed) {
        let kernel = m.fit(&Source { files: &[], source: None, cross: false });
        let other = others.iter().find(|o| o.op() == m.op() && o.names()[2] == m.names()[2]).unwrap();
        assert!(other.names()[1] == "theirs" && other.form() != FormName::Streamed);
        let (here, there) = (m.compare(&kernel).unwrap().unwrap(), other.compare(&kernel).unwrap().unwrap());
        assert_eq!(here.rows.len(), there.rows.len());
        for (a, b) in here.rows.iter().zip(&there.rows) {
            let near = (a.predicted_s / b.predicted_s - 1.0).abs();
            assert!(near < if a.cell == "zipf-1.2" { 0.25 } else { 0.02 }, "{a:?} {b:?}");
        }
        // So does a kernel that changes from streaming elsewhere than the one that was measured.
        let text = toml::to_string(&kernel).unwrap();
        let moved: Kernel =
            toml::from_str(&text.replace("few = 80", "few = 9").replace("few = 48", "few = 9")).unwrap();
        let both = [m, other].map(|m| m.compare(&moved).unwrap().unwrap().rows);
        assert!(both[0].iter().zip(&both[1]).all(|(a, b)| a.predicted_s == b.predicted_s));
        assert!(both[0].iter().zip(&here.rows).any(|(a, b)| a.predicted_s > 1.2 * b.predicted_s));
    }
}
