//! A ticket as a QR code in the terminal: two modules a character, black on white whatever the terminal's colours are.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Black on bright white, and back to normal.
const PAPER: &str = "\x1b[30;107m";
const END: &str = "\x1b[0m";

/// The code in lines, or nothing for a text that is too long for one. Without colours the terminal is taken for a dark one.
pub fn qr(text: &str, color: bool) -> String {
    // The lowest level: a screen has no dirt on it, and a ticket with many addresses must fit.
    let Ok(code) = QrCode::with_error_correction_level(text, EcLevel::L) else {
        return String::new();
    };
    let mut image = code.render::<Dense1x2>();
    if !color {
        image.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark);
    }
    let lines = image.build();
    let (before, after) = if color { (PAPER, END) } else { ("", "") };
    lines.lines().map(|line| format!("{before}{line}{after}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_square_of_half_blocks_and_fits_a_terminal() {
        let code = qr(&"X".repeat(600), false);
        let lines: Vec<_> = code.lines().collect();
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width));
        assert!(lines.len() == width.div_ceil(2) && width <= 120, "{width}");
        assert!(
            qr("x", true)
                .lines()
                .all(|line| line.starts_with(PAPER) && line.ends_with(END))
        );
    }

    #[test]
    fn what_is_too_long_gets_none() {
        assert_eq!(qr(&"x".repeat(10_000), true), "");
    }
}
