//! The shapes of requests and answers, field by field as OpenAI has them. They know nothing of
//! what is done with them; `endpoints` turns them into work.

pub(crate) mod alias;
pub(crate) mod chat;
pub(crate) mod chat_answer;
pub(crate) mod completion;
pub(crate) mod embedding;
pub(crate) mod feedback;
pub(crate) mod file;
pub(crate) mod job;
pub(crate) mod message;
pub(crate) mod model;
pub(crate) mod number;
pub(crate) mod sampling;
pub(crate) mod session;
pub(crate) mod strict;
pub(crate) mod tool;
pub(crate) mod usage;
