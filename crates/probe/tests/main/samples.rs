//! A small world to probe: a document with sections, an embedder of a few words, questions, and an index that answers.

use lifeboat_base::digest::Digest;
use lifeboat_probe::{
    Anchor, Board, BoardContext, Embedder, GoldProbe, GoldSet, Hit, Jitter, Measured, Place, ProbeError,
    Profile, Question, Retrieval, RunSet, Section, Span, TextType, measure, words,
};

/// How many questions a sample board has.
pub(super) const PROBES: usize = 60;

/// Vectors of the letters of a text, which is enough to tell sections apart.
pub(super) struct Letters;

impl Embedder for Letters {
    fn id(&self) -> &'static str {
        "letters"
    }

    fn hash(&self) -> Digest {
        Digest::of(b"letters v1")
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProbeError> {
        let vector = |text: &&str| {
            let mut vector = vec![0.0f32; 128];
            for word in text.split_whitespace() {
                let digest = Digest::of(word.as_bytes());
                let at = digest.as_bytes()[0] % 128;
                vector[usize::from(at)] += 1.0;
            }
            vector
        };
        Ok(texts.iter().map(vector).collect())
    }
}

pub(super) fn section_id(at: usize) -> String {
    format!("handbook.s{at:03}")
}

/// The text of a section, all of them of one length.
pub(super) fn section_text(at: usize) -> String {
    (0..5).map(|word| format!("word{at:03}x{word}")).collect::<Vec<_>>().join(" ")
}

pub(super) fn section_span(at: usize) -> Span {
    let len = section_text(0).len() as u64 + 1;
    let start = at as u64 * len;
    Span::new("sample", start, start + len - 1).unwrap()
}

pub(super) fn place() -> Place {
    Place { doc_id: "handbook".to_owned(), rev: "r1".to_owned() }
}

/// A section with its words.
pub(super) fn section(at: usize) -> Section {
    Section {
        section_id: section_id(at),
        place: place(),
        spans: vec![section_span(at)],
        words: words(&section_text(at), section_span(at).start()),
    }
}

/// A question of words that its section has, and one that it does not.
pub(super) fn gold(at: usize) -> GoldProbe {
    let text = section_text(at);
    let asked = |last: &str| format!("{text} {last}");
    GoldProbe {
        qid: format!("p-{at:03}"),
        question: asked("how"),
        paraphrases: vec![asked("how"), asked("why"), asked("where")],
        expected_section: section_id(at),
        required_sections: Vec::new(),
        anchor: Some(Anchor {
            doc_id: "handbook".to_owned(),
            section_id: section_id(at),
            offsets: section_span(at),
            hash: Digest::of(text.as_bytes()),
            text,
        }),
        decoy_section: Some(section_id(at + 1)),
        expected_citations: vec![format!("doc:handbook#{}", section_id(at))],
        answerable: true,
        flow: "help".to_owned(),
        text_type: TextType::Prose,
        revision: "r1".to_owned(),
    }
}

pub(super) fn gold_set(count: usize) -> GoldSet {
    GoldSet::new((0..count).map(gold)).unwrap()
}

pub(super) fn hit(at: usize, place_in_list: u64) -> Hit {
    Hit {
        snippet_id: format!("c{at:03}"),
        section_id: section_id(at),
        place: place(),
        span: section_span(at),
        text: section_text(at),
        score: 0.9 / f64::from(u32::try_from(place_in_list).unwrap()),
        k_pos: place_in_list,
    }
}

/// Ten snippets, the section of the question first.
pub(super) fn found(at: usize) -> Vec<Hit> {
    (0..10).map(|next| hit(at + next, next as u64 + 1)).collect()
}

pub(super) fn answers(hits: &[Hit], seeds: [u64; 2]) -> Vec<Retrieval> {
    let one = |seed| Retrieval {
        variation: seed,
        jitter: Some(Jitter::Ws),
        hits: hits.to_vec(),
        ..Retrieval::default()
    };
    (0..3).flat_map(|_| seeds.map(one)).collect()
}

pub(super) fn context() -> BoardContext {
    BoardContext {
        index_family: "docs-v1".to_owned(),
        retriever_metric: "cosine".to_owned(),
        analyzer: "plain".to_owned(),
        run_set: RunSet::After,
        ts: "2026-11-22T02:00:00Z".to_owned(),
        index_hash: Digest::of(b"index"),
        rerank_conf: "none".to_owned(),
        gold_version: Digest::of(b"gold"),
        k: 10,
        baseline_score_q3: None,
    }
}

pub(super) fn measured_as(at: usize, retrievals: &[Retrieval], context: &BoardContext) -> Measured {
    let gold = gold(at);
    let decoy = section_text(at + 1);
    let question = Question { gold: &gold, required: vec![section(at)], decoy: Some(&decoy) };
    measure(&question, retrievals, &Letters, context, &Profile::default()).unwrap()
}

pub(super) fn measured(at: usize, retrievals: &[Retrieval]) -> Measured {
    measured_as(at, retrievals, &context())
}

/// A board over an index whose answer to each question is `answer`.
pub(super) fn board(answer: impl Fn(usize) -> Vec<Retrieval>) -> Board {
    let probes = (0..PROBES).map(|at| measured(at, &answer(at))).collect();
    Board::of(probes, &Profile::default()).unwrap()
}

pub(super) fn sound() -> Board {
    board(|at| answers(&found(at), [1, 2]))
}
