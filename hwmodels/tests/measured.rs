//! Times that were measured on a real machine (`hwmodels/measured`): do the forms describe them?

use moesim_hwmodels::Hardware;
use moesim_hwmodels::calibrate::data::Table;
use moesim_hwmodels::calibrate::device;
use moesim_hwmodels::calibrate::measured::Source;
use moesim_hwmodels::calibrate::profile::{FormName, Op};
use moesim_hwmodels::calibrate::schema::{self, Context};
use std::path::Path;

/// On rows that the fit has seen within a tenth in the mean, and on shapes that it has not (experts in BF16; `calibrate fit` does all).
#[test]
fn the_form_of_processors_describes_a_processor() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("measured");
    let hardware = Hardware::load(folder.join("xeon-avx512-2-threads.toml").to_str().unwrap()).unwrap();
    let table = Table::read(&folder.join("xeon-avx512-2-threads.csv.gz"), &[]).unwrap();
    let (peaks, links) = (|_: &str, p: &str| device::peaks(&hardware.device, p), |_: &str| device::links(&hardware));
    let context = Context { device: None, peaks: &peaks, links: &links, served: None };
    let measured = schema::read("measured", &[table], &context).unwrap();
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
