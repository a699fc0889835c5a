//! Planning: which of four plans leads to the goal? Each plan is executed.

use super::draft::{Draft, NUM_CHOICES, ask};
use super::draws::Draws;
use super::words::{ERRANDS, NAMES, ROOMS};
use super::{Kind, Language};

pub(super) const KINDS: &[Kind] = &[errands, route, switches];

/// Four different orders of the same things.
fn orders(draws: &mut Draws, count: usize) -> Vec<Vec<usize>> {
    let all: Vec<usize> = (0..count).collect();
    let mut orders: Vec<Vec<usize>> = Vec::new();
    while orders.len() < NUM_CHOICES {
        let order = draws.sample(&all, count);
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    orders
}

/// Errands of which some must be done before others.
fn errands(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let count = if level >= 2 { 4 } else { 3 };
    let names: Vec<&str> =
        draws.sample(ERRANDS, count).into_iter().map(|word| language.word(word)).collect();
    let orders = orders(draws, count);
    let place = |order: &[usize], errand| order.iter().position(|&other| other == errand);
    // For each other order a pair that it has the wrong way round.
    let mut constraints: Vec<(usize, usize)> = Vec::new();
    for other in &orders[1..] {
        let broken: Vec<(usize, usize)> = pairs(&orders[0])
            .into_iter()
            .filter(|&(first, second)| place(other, first) > place(other, second))
            .collect();
        constraints.push(draws.pick(&broken));
    }
    if level >= 3 {
        constraints.push(draws.pick(&pairs(&orders[0])));
    }
    constraints.sort_unstable();
    constraints.dedup();
    draws.shuffle(&mut constraints);
    let person = language.word(draws.pick(NAMES));
    let mut sentences = vec![language.say(
        format!("{person} has {count} things to do today."),
        format!("{person}今天有{count}件事要做。"),
    )];
    for &(first, second) in &constraints {
        let (first, second) = (names[first], names[second]);
        sentences.push(match draws.below(2) {
            0 => language.say(
                format!("\"{second}\" can only be done after \"{first}\"."),
                format!("“{first}”完成了，才能“{second}”。"),
            ),
            _ => language.say(
                format!("\"{second}\" must wait for \"{first}\"."),
                format!("“{second}”要等“{first}”做完。"),
            ),
        });
    }
    let question =
        language.say("Which order is possible?".to_owned(), "哪个顺序是可行的？".to_owned());
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    let choices = orders.iter().map(|order| {
        let is_possible =
            constraints.iter().all(|&(first, second)| place(order, first) < place(order, second));
        let steps: Vec<&str> = order.iter().map(|&errand| names[errand]).collect();
        (steps.join(language.word((", then ", "，然后"))), is_possible)
    });
    Draft::new(prompt, choices)
}

/// All pairs of an order, the earlier one first.
fn pairs(order: &[usize]) -> Vec<(usize, usize)> {
    let from = |(index, &first): (usize, &usize)| {
        order[index + 1..].iter().map(move |&second| (first, second)).collect::<Vec<_>>()
    };
    order.iter().enumerate().flat_map(from).collect()
}

/// Rooms with doors between some of them; the routes go through the same rooms.
fn route(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let between = if level >= 3 { 4 } else { 3 };
    let rooms: Vec<&str> =
        draws.sample(ROOMS, between + 2).into_iter().map(|word| language.word(word)).collect();
    let (start, goal) = (between, between + 1);
    let routes: Vec<Vec<usize>> = orders(draws, between)
        .into_iter()
        .map(|order| [vec![start], order, vec![goal]].concat())
        .collect();
    let has_door = |doors: &[(usize, usize)], a: usize, b: usize| {
        doors.contains(&(a, b)) || doors.contains(&(b, a))
    };
    let is_open = |doors: &[(usize, usize)], route: &[usize]| {
        route.windows(2).all(|step| has_door(doors, step[0], step[1]))
    };
    let mut doors: Vec<(usize, usize)> =
        routes[0].windows(2).map(|step| (step[0], step[1])).collect();
    // Doors that the other routes need, as long as none of them opens.
    for _ in 0..2 + 2 * level {
        let other = &routes[draws.pick(&[1, 2, 3])];
        let at = draws.below(other.len() - 1);
        let door = (other[at], other[at + 1]);
        let more = [doors.as_slice(), &[door]].concat();
        if !has_door(&doors, door.0, door.1)
            && !routes[1..].iter().any(|route| is_open(&more, route))
        {
            doors = more;
        }
    }
    draws.shuffle(&mut doors);
    let sentences: Vec<String> = doors
        .iter()
        .map(|&(a, b)| {
            let (a, b) = if draws.one_in(2) { (a, b) } else { (b, a) };
            let (a, b) = (rooms[a], rooms[b]);
            language
                .say(format!("A door connects the {a} and the {b}."), format!("{a}和{b}之间有门。"))
        })
        .collect();
    let (from, to) = (rooms[start], rooms[goal]);
    let question = language.say(
        format!("There are no other doors. Which way leads from the {from} to the {to}?"),
        format!("别处没有门。从{from}到{to}，哪条路走得通？"),
    );
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    let choices = routes.iter().map(|route| {
        let names: Vec<&str> = route.iter().map(|&room| rooms[room]).collect();
        (names.join(" - "), is_open(&doors, route))
    });
    Draft::new(prompt, choices)
}

/// Lamps that buttons switch: which two buttons turn all of them on?
fn switches(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let num_lamps = if level >= 3 { 4 } else { 3 };
    let lamps: Vec<usize> = (0..num_lamps).collect();
    let mut is_on: Vec<bool> = lamps.iter().map(|_| draws.one_in(4)).collect();
    if is_on.iter().all(|&on| on) {
        is_on[0] = false;
    }
    let buttons: Vec<Vec<usize>> = (0..4)
        .map(|_| {
            let num_switched = draws.between(1, num_lamps as i64 - 1) as usize;
            let mut switched = draws.sample(&lamps, num_switched);
            switched.sort_unstable();
            switched
        })
        .collect();
    const PRESSES: [(usize, usize); 6] = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
    let presses = draws.sample(&PRESSES, NUM_CHOICES);
    let number = |lamp: &usize| (lamp + 1).to_string();
    let numbers = |lamps: &[usize]| {
        lamps.iter().map(number).collect::<Vec<_>>().join(language.word((" and ", "和")))
    };
    let on: Vec<usize> = lamps.iter().copied().filter(|&lamp| is_on[lamp]).collect();
    let mut sentences = vec![match on.as_slice() {
        [] => language.say(
            format!("There are {num_lamps} lamps, 1 to {num_lamps}, all off."),
            format!("有{num_lamps}盏灯，编号1到{num_lamps}，全都关着。"),
        ),
        on => language.say(
            format!(
                "There are {num_lamps} lamps, 1 to {num_lamps}. Only lamp {} is on.",
                numbers(on)
            ),
            format!("有{num_lamps}盏灯，编号1到{num_lamps}，只有{}号亮着。", numbers(on)),
        ),
    }];
    const LABELS: [&str; 4] = ["A", "B", "C", "D"];
    for (label, switched) in LABELS.iter().zip(&buttons) {
        let switched = numbers(switched);
        sentences.push(language.say(
            format!("Button {label} switches lamp {switched}."),
            format!("按钮{label}切换{switched}号灯。"),
        ));
    }
    let question = language.say(
        "A lamp that is switched goes on if it was off, and off if it was on. \
         Which buttons turn all lamps on?"
            .to_owned(),
        "被切换的灯，关着就亮，亮着就关。按哪两个按钮能让所有灯都亮？".to_owned(),
    );
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    let choices = presses.into_iter().map(|(first, second)| {
        let mut state = is_on.clone();
        for &lamp in buttons[first].iter().chain(&buttons[second]) {
            state[lamp] = !state[lamp];
        }
        let both = language.word((" and ", "和"));
        (format!("{}{both}{}", LABELS[first], LABELS[second]), state.iter().all(|&on| on))
    });
    Draft::new(prompt, choices)
}
