//! The clock that a template may ask, and `strftime`.

use alloyforge_types::{Error, Result};
use chrono::{Datelike, Local, Timelike};

use crate::fault::Outcome;
use crate::strings::Scan;
use crate::value::Buf;

/// A moment on a calendar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Clock {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    micro: u32,
    /// Minutes east of Greenwich, where the moment came with them.
    offset: Option<i32>,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Widest field of a format.
const MAX_FIELD: usize = 1024;

impl Clock {
    /// The present moment where the machine is, as Python's `datetime.now()` gives it.
    pub(crate) fn now() -> Self {
        let now = Local::now();
        Self {
            year: now.year().into(),
            month: now.month(),
            day: now.day(),
            hour: now.hour(),
            minute: now.minute(),
            second: now.second(),
            micro: now.timestamp_subsec_micros() % 1_000_000,
            offset: None,
        }
    }

    /// An ISO 8601 moment: a date, optionally a time, optionally an offset.
    ///
    /// # Errors
    /// `InvalidRequest` for `now`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::parse_iso(text).ok_or_else(|| Error::invalid("now", format!("`{text}` is no ISO 8601 time")))
    }

    fn parse_iso(text: &str) -> Option<Self> {
        let text = text.trim();
        let (date, time) = match text.split_once(['T', 't', ' ']) {
            Some((date, time)) => (date, time),
            None => (text, "00:00:00"),
        };
        let mut parts = date.splitn(3, '-');
        let year = digits(parts.next()?, 4)?;
        let (month, day) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
        let (time, offset) = match time.strip_suffix(['Z', 'z']) {
            Some(time) => (time, Some(0)),
            None => match time.rfind(['+', '-']) {
                Some(at) => {
                    let (time, zone) = time.split_at(at);
                    let (sign, zone) = zone.split_at(1);
                    let (hours, minutes) = match zone.split_once(':') {
                        Some(parts) => parts,
                        None => zone.split_at_checked(2)?,
                    };
                    let minutes = if minutes.is_empty() { 0 } else { digits(minutes, 2)? };
                    let offset = (digits(hours, 2)? * 60 + minutes) as i32;
                    (time, Some(if sign == "-" { -offset } else { offset }))
                }
                None => (time, None),
            },
        };
        let (time, fraction) = time.split_once(['.', ',']).unwrap_or((time, ""));
        let mut parts = time.splitn(3, ':');
        let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next().unwrap_or("00"), 2)?);
        let second = digits(parts.next().unwrap_or("00"), 2)?;
        if !fraction.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let micro = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
        let year = i64::from(year);
        let is_sound = (1..=12).contains(&month)
            && (1..=month_len(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60
            && year > 0;
        is_sound.then_some(Self { year, month, day, hour, minute, second, micro, offset })
    }

    /// Days since 1 January 1970.
    fn days(&self) -> i64 {
        let first = days_before_year(self.year) - days_before_year(1970);
        first + i64::from(self.year_day()) - 1
    }

    /// The day in the year, from 1.
    fn year_day(&self) -> u32 {
        (1..self.month).map(|month| month_len(self.year, month)).sum::<u32>() + self.day
    }

    /// The day of the week, Monday being 0.
    fn week_day(&self) -> u32 {
        (self.days() + 3).rem_euclid(7) as u32
    }

    /// The ISO 8601 year and week.
    fn iso_week(&self) -> (i64, u32) {
        let week = (i64::from(self.year_day()) - i64::from(self.week_day()) + 9) / 7;
        let weeks_in = |year: i64| {
            let january = Self { year, month: 1, day: 1, ..*self }.week_day();
            if january == 3 || january == 2 && is_leap(year) { 53 } else { 52 }
        };
        match week {
            0 => (self.year - 1, weeks_in(self.year - 1)),
            week if week > i64::from(weeks_in(self.year)) => (self.year + 1, 1),
            week => (self.year, week as u32),
        }
    }

    /// Appends the moment in C's `strftime` format, in the C locale, as glibc extends it.
    pub(crate) fn format(&self, out: &mut Buf, format: &str) -> Outcome<()> {
        let mut rest = format;
        while let Some((head, tail)) = rest.split_once('%') {
            out.push(head)?;
            let mut chars = Scan { rest: tail };
            let mut flag = None;
            let mut is_upper = false;
            while let Some(next) = chars.next_if(|c| matches!(c, '-' | '_' | '0' | '^' | '#')) {
                match next {
                    '^' => is_upper = true,
                    '#' => {}
                    padding => flag = Some(padding),
                }
            }
            let width = chars.number(MAX_FIELD)?;
            chars.next_if(|c| matches!(c, 'E' | 'O'));
            let Some(code) = chars.next() else {
                // A lone `%` at the end stands for itself.
                out.push("%")?;
                rest = "";
                continue;
            };
            match self.field(code) {
                Some(field) => field.write(out, flag, width, is_upper)?,
                // As glibc does, what is unknown stays as it is.
                None => {
                    out.push("%")?;
                    out.push(&tail[..tail.len() - chars.rest.len()])?;
                }
            }
            rest = chars.rest;
        }
        out.push(rest)
    }

    fn field(&self, code: char) -> Option<Field> {
        let number = |value: i64, width: usize| Some(Field::Number(value, width, '0'));
        let spaced = |value: i64| Some(Field::Number(value, 2, ' '));
        let text = |text: &str| Some(Field::Text(text.into()));
        let hour12 = (self.hour + 11) % 12 + 1;
        let (week_day, month) = (self.week_day() as usize, self.month as usize - 1);
        let clock = format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second);
        let half = if self.hour < 12 { "AM" } else { "PM" };
        match code {
            'a' => text(&DAYS[week_day][..3]),
            'A' => text(DAYS[week_day]),
            'b' | 'h' => text(&MONTHS[month][..3]),
            'B' => text(MONTHS[month]),
            'c' => text(&format!(
                "{} {} {:2} {clock} {}",
                &DAYS[week_day][..3],
                &MONTHS[month][..3],
                self.day,
                self.year
            )),
            'C' => number(self.year / 100, 2),
            'd' => number(self.day.into(), 2),
            'D' | 'x' => text(&format!("{:02}/{:02}/{:02}", self.month, self.day, self.year % 100)),
            'e' => spaced(self.day.into()),
            'f' => number(self.micro.into(), 6),
            'F' => text(&format!("{}-{:02}-{:02}", self.year, self.month, self.day)),
            'g' => number(self.iso_week().0 % 100, 2),
            'G' => number(self.iso_week().0, 4),
            'H' => number(self.hour.into(), 2),
            'I' => number(hour12.into(), 2),
            'j' => number(self.year_day().into(), 3),
            'k' => spaced(self.hour.into()),
            'l' => spaced(hour12.into()),
            'm' => number(self.month.into(), 2),
            'M' => number(self.minute.into(), 2),
            'n' => text("\n"),
            'p' => text(half),
            'P' => text(&half.to_lowercase()),
            'r' => text(&format!("{hour12:02}:{:02}:{:02} {half}", self.minute, self.second)),
            'R' => text(&clock[..5]),
            's' => {
                let seconds = i64::from(self.hour * 3600 + self.minute * 60 + self.second);
                number(self.days() * 86400 + seconds - i64::from(self.offset.unwrap_or(0)) * 60, 1)
            }
            'S' => number(self.second.into(), 2),
            't' => text("\t"),
            'T' | 'X' => text(&clock),
            'u' => number(i64::from(self.week_day()) + 1, 1),
            'U' => number((i64::from(self.year_day()) + 6 - i64::from((self.week_day() + 1) % 7)) / 7, 2),
            'V' => number(self.iso_week().1.into(), 2),
            'w' => number(i64::from((self.week_day() + 1) % 7), 1),
            'W' => number((i64::from(self.year_day()) + 6 - i64::from(self.week_day())) / 7, 2),
            'y' => number(self.year % 100, 2),
            'Y' => number(self.year, 1),
            'z' => text(&self.offset.map_or(String::new(), |offset| {
                let sign = if offset < 0 { '-' } else { '+' };
                format!("{sign}{:02}{:02}", offset.abs() / 60, offset.abs() % 60)
            })),
            'Z' => text(match self.offset {
                Some(0) => "UTC",
                _ => "",
            }),
            '%' => text("%"),
            _ => None,
        }
    }
}

/// What a code of the format stands for.
enum Field {
    /// A number, its usual width, its usual padding.
    Number(i64, usize, char),
    Text(String),
}

impl Field {
    fn write(self, out: &mut Buf, flag: Option<char>, width: Option<usize>, is_upper: bool) -> Outcome<()> {
        let (text, width, padding) = match (self, flag) {
            (Self::Number(value, usual, _), Some('-')) => {
                (value.to_string(), width.map(|w| w.max(usual)), "0")
            }
            (Self::Number(value, usual, _), Some('_')) => {
                (value.to_string(), Some(width.unwrap_or(usual)), " ")
            }
            (Self::Number(value, usual, padding), flag) => {
                let padding = if padding == '0' || flag == Some('0') { "0" } else { " " };
                (value.to_string(), Some(width.unwrap_or(usual)), padding)
            }
            (Self::Text(text), flag) => (text, width, if flag == Some('0') { "0" } else { " " }),
        };
        out.push_times(padding, width.unwrap_or(0).saturating_sub(text.len()))?;
        out.push(&if is_upper { text.to_uppercase() } else { text })
    }
}

fn digits(text: &str, len: usize) -> Option<u32> {
    let is_number = text.len() == len && text.bytes().all(|c| c.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_len(year: i64, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the beginning of year 1 to that of `year`.
fn days_before_year(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400)
}
