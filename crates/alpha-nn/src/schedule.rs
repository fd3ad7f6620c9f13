//! Learning-rate schedules.

/// Shape of the schedule after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Half a cosine from the peak to the minimum, reached at the last step
    /// (Loshchilov and Hutter, 2017, equation 5, without restarts).
    Cosine,
    /// The peak at every step.
    Constant,
}

/// A schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at which the warm-up begins and the cosine ends.
    pub lr_min: f64,
    /// Steps of linear warm-up; 0 for none.
    pub warmup_steps: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Shape after the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// Learning rate of a step, counted from 1. In warm-up step i of W: lrMin + (lr − lrMin)·i/W.
    pub fn lr_at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.lr_min + (self.lr - self.lr_min) * step as f64 / self.warmup_steps as f64;
        }
        match self.decay {
            Decay::Constant => self.lr,
            Decay::Cosine => {
                // The peak is at the last warm-up step; without warm-up at the first step.
                let start = self.warmup_steps.max(1);
                let length = self.total_steps.saturating_sub(start).max(1);
                let progress = (step.saturating_sub(start) as f64 / length as f64).min(1.0);
                self.lr_min + (self.lr - self.lr_min) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSINE: Schedule =
        Schedule { lr: 1.0, lr_min: 0.1, warmup_steps: 10, total_steps: 110, decay: Decay::Cosine };

    #[test]
    fn warms_up_linearly_peaks_and_ends_at_the_minimum() {
        assert!((COSINE.lr_at(1) - 0.19).abs() < 1e-12);
        assert!((COSINE.lr_at(10) - 1.0).abs() < 1e-12);
        assert!((COSINE.lr_at(60) - 0.55).abs() < 1e-12);
        assert!((COSINE.lr_at(110) - 0.1).abs() < 1e-12);
        assert!((COSINE.lr_at(500) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn rises_then_falls_monotonically() {
        for step in 1..110 {
            let (now, next) = (COSINE.lr_at(step), COSINE.lr_at(step + 1));
            assert!(if step < 10 { next > now } else { next <= now }, "step {step}");
        }
    }

    #[test]
    fn constant_stays_at_the_peak() {
        let constant = Schedule { warmup_steps: 0, decay: Decay::Constant, ..COSINE };
        assert!((1..200).all(|step| constant.lr_at(step).to_bits() == 1.0f64.to_bits()));
    }

    #[test]
    fn a_run_of_one_step_uses_the_peak() {
        let single = Schedule { warmup_steps: 0, total_steps: 1, ..COSINE };
        assert!((single.lr_at(1) - 1.0).abs() < 1e-12);
    }
}
