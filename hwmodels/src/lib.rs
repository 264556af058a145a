//! moesim: hwmodels.
