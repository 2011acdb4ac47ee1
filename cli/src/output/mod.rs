//! Everything that ends on the terminal: tables, templates, times, and the escaping of foreign
//! bytes.

pub mod escape;
pub mod list;
pub mod size;
pub mod table;
pub mod template;
pub mod time;
