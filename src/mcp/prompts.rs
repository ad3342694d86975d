//! Prompts that a person selects in the host: each guides an agent through the right tools. Their arguments are neither
//! stored nor logged here.

use rmcp::{
    ErrorData,
    model::{
        GetPromptRequestParams, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role,
    },
};
use serde_json::Value;

use super::{
    Shared,
    tools::{MEDICATION_CHECK, SYMPTOM_ASSESSMENT},
};
use crate::oauth::Scopes;

/// A prompt and the tool that it requires.
struct Template {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    tool: &'static str,
    arguments: &'static [Argument],
    /// Instructions to the agent, which precede the person's arguments.
    text: &'static str,
}

struct Argument {
    name: &'static str,
    description: &'static str,
    required: bool,
}

const TEMPLATES: [Template; 2] = [
    Template {
        name: "medication_review",
        title: "Review medications",
        description: "Checks a list of medications for interactions and contraindications. Billed by BondMCP.",
        tool: MEDICATION_CHECK,
        arguments: &[
            Argument {
                name: "medications",
                description: "The medications with dosage and frequency, such as: warfarin 5 mg daily, ibuprofen 400 mg as needed",
                required: true,
            },
            Argument {
                name: "conditions",
                description: "Known conditions, such as: atrial fibrillation, chronic kidney disease",
                required: false,
            },
        ],
        text: "\
Review the medications below with the `medication_check` tool of BondMCP.
1. Call it once, with every medication as an entry of its own (name, dosage, frequency) and every condition; the call is \
billed, so do not repeat it to be sure. If something that matters is missing, ask me first.
2. Tell me the interactions and contraindications it reports, the most severe first, and what it recommends. Say which \
of it comes from the tool and which from you.
3. It is not a diagnosis, and no reason by itself to stop or change a medication: say that I should talk to a doctor or \
pharmacist.",
    },
    Template {
        name: "triage",
        title: "Assess symptoms",
        description: "Finds out how urgent symptoms are and what to do next. Billed by BondMCP.",
        tool: SYMPTOM_ASSESSMENT,
        arguments: &[
            Argument {
                name: "symptoms",
                description: "The symptoms in your own words, with how severe they are and since when",
                required: true,
            },
            Argument { name: "age", description: "Age in years", required: false },
            Argument { name: "gender", description: "female, male or other", required: false },
        ],
        text: "\
Assess the symptoms below with the `symptom_assessment` tool of BondMCP.
0. If they could be an emergency (chest pain, trouble breathing, signs of a stroke, heavy bleeding, thoughts of \
suicide), do not wait for a tool: tell me to call the local emergency number now.
1. Otherwise call the tool once, with every symptom as an entry of its own (description, severity, duration, onset) and \
my age and gender where I gave them; the call is billed, so do not repeat it to be sure. If something that matters is \
missing, ask me first.
2. Tell me how urgent it says this is, what it recommends and which conditions it considers. Say which of it comes from \
the tool and which from you.
3. It is not a diagnosis: say when and where I should see a doctor.",
    },
];

/// Returns the name of the tool on which a prompt depends.
pub(super) fn tool_of(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|template| template.name == name).map(|template| template.tool)
}

impl Shared {
    /// Returns the prompts whose tool is served.
    fn templates(&self, scopes: Scopes) -> impl Iterator<Item = &'static Template> {
        TEMPLATES.iter().filter(move |template| self.serves(template.tool, scopes))
    }

    pub(super) fn prompts(&self, scopes: Scopes) -> Vec<Prompt> {
        self.templates(scopes).map(Template::face).collect()
    }

    /// Whether there is a prompt with this argument.
    pub(super) fn has_argument(&self, prompt: &str, argument: &str, scopes: Scopes) -> bool {
        self.templates(scopes).any(|template| template.name == prompt && template.has(argument))
    }

    pub(super) fn prompt(
        &self,
        request: &GetPromptRequestParams,
        scopes: Scopes,
    ) -> Result<GetPromptResult, ErrorData> {
        let template = self
            .templates(scopes)
            .find(|template| template.name == request.name)
            .ok_or_else(|| ErrorData::invalid_params("there is no such prompt", None))?;
        let text = template.filled_in(&request.arguments.clone().unwrap_or_default())?;
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)])
            .with_description(template.description))
    }
}

impl Template {
    fn face(&self) -> Prompt {
        let arguments = self.arguments.iter().map(|argument| {
            PromptArgument::new(argument.name)
                .with_description(argument.description)
                .with_required(argument.required)
        });
        Prompt::new(self.name, Some(self.description), Some(arguments.collect())).with_title(self.title)
    }

    fn has(&self, argument: &str) -> bool {
        self.arguments.iter().any(|known| known.name == argument)
    }

    fn filled_in(&self, given: &JsonObject) -> Result<String, ErrorData> {
        if !given.keys().all(|name| self.has(name)) {
            return Err(ErrorData::invalid_params("there is no such argument; see prompts/list", None));
        }
        let mut text = self.text.to_owned();
        for Argument { name, required, .. } in self.arguments {
            let value = match given.get(*name) {
                None | Some(Value::Null) => "",
                Some(Value::String(value)) => value.trim(),
                Some(_) => {
                    let problem = format!("the argument `{name}` must be a text");
                    return Err(ErrorData::invalid_params(problem, None));
                }
            };
            if !value.is_empty() {
                text.push_str("\n\n");
                text.push_str(name);
                text.push_str(":\n");
                text.push_str(value);
            } else if *required {
                let problem = format!("the argument `{name}` is missing; it is a text");
                return Err(ErrorData::invalid_params(problem, None));
            }
        }
        Ok(text)
    }
}
