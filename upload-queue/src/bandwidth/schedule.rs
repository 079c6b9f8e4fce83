//! Hours of the day at which other limits hold: "full speed 01:00-07:00".

/// A time of day, in minutes since midnight: 0 to 1439.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeOfDay(u16);

const MINUTES_PER_DAY: u16 = 24 * 60;
const SECS_PER_DAY: i64 = 24 * 3600;

impl TimeOfDay {
    /// Reads `7:00` or `07:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let (hours, minutes) = text.split_once(':')?;
        if minutes.len() != 2 || !(hours.len() == 1 || hours.len() == 2) {
            return None;
        }
        let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours < 24 && minutes < 60).then_some(Self(hours * 60 + minutes))
    }

    /// The time of day at `unix_secs`, where clocks are ahead of UTC by `utc_offset_secs`.
    pub fn at(unix_secs: i64, utc_offset_secs: i32) -> Self {
        let secs = (unix_secs + i64::from(utc_offset_secs)).rem_euclid(SECS_PER_DAY);
        Self((secs / 60) as u16)
    }
}

/// Hours of the day; those that end before they begin go over midnight, equal ones are the whole day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hours {
    /// Included.
    pub from: TimeOfDay,
    /// Excluded.
    pub to: TimeOfDay,
}

impl Hours {
    /// Whether a time is in them.
    pub fn contain(&self, time: TimeOfDay) -> bool {
        let since = |time: TimeOfDay| (time.0 + MINUTES_PER_DAY - self.from.0) % MINUTES_PER_DAY;
        self.from == self.to || since(time) < since(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> TimeOfDay {
        TimeOfDay::parse(text).unwrap()
    }

    #[test]
    fn hours_may_go_over_midnight() {
        let hours = |from, to| Hours {
            from: time(from),
            to: time(to),
        };
        for (hours, inside, outside) in [
            (hours("01:00", "7:00"), ["01:00", "06:59"], ["00:59", "07:00"]),
            (hours("22:30", "06:00"), ["23:00", "00:00"], ["06:00", "22:29"]),
        ] {
            assert!(inside.iter().all(|at| hours.contain(time(at))), "{hours:?}");
            assert!(!outside.iter().any(|at| hours.contain(time(at))), "{hours:?}");
        }
        assert!(hours("08:00", "08:00").contain(time("03:00")));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["24:00", "7", "07:60", "7:5", "-1:00", "007:00", "a:00"] {
            assert_eq!(TimeOfDay::parse(text), None, "{text}");
        }
        assert_eq!(TimeOfDay::at(1_800_000_000, 3600), time("9:00"));
        assert_eq!(TimeOfDay::at(-1, 0), time("23:59"));
    }
}
